"""The rows of a step, dealt out over the ranks: each computes its share, all go on with the rows of all.

A row is what a network takes by itself: an instance of a bag, or an image. Whatever follows `gather`, `sum` or `mean`
is computed alike on every rank. DDP takes the mean of the gradients over R ranks: what ranks compute alike keeps its
gradient by that, and gradients that come back through these three are multiplied by R, so that those of the shares add
up. A parameter may stand on both sides.

    with dealing(batch.share) as deal:
        features = deal.gather(encoder(batch.instances))   # (N, D) on every rank
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class WholeStep:
    """A step that one process computes alone: nothing is dealt, nothing gathered."""

    def own(self, rows: Tensor, dim: int = 0) -> Tensor:
        """Of rows of the whole step, those that this rank computes."""
        return rows

    def gather(self, rows: Tensor) -> Tensor:
        """The rows (N, ...) of all ranks in the order of the step, with gradient."""
        return rows

    def mean(self, values: Tensor) -> Tensor:
        """Mean () over values (n, ...) of all ranks, as many in each row."""
        return values.mean()

    def sum(self, value: Tensor) -> Tensor:
        """Sum () of what each rank has to add."""
        return value

    def real(self, rows: Tensor) -> Tensor:
        """The rows (n, ...) without the one that stands in where this rank has none."""
        return rows

    weight = 1
    """Of a loss of this rank's rows alone, so that the mean of the gradients over the ranks is their sum."""

    def alike(self, total: int) -> "WholeStep":
        """A step of other rows, as many as `total`, dealt out over the same ranks."""
        return self

    def take(self, positions: Tensor) -> "tuple[WholeStep, Tensor]":
        """A step whose row i is row `positions[i]` of this one, and which rows of this rank make its share of that."""
        return self, positions

    def joined(self, parts: "Sequence[tuple[WholeStep, Tensor]]") -> "tuple[WholeStep, Tensor]":
        """Steps laid end to end, each with this rank's rows of it, as one."""
        return self, torch.cat([rows for _, rows in parts])


WHOLE = WholeStep()


class Share(WholeStep):
    """What each rank computes of a step of N rows; equal on all ranks but for whose share it is.

    A rank without any row computes one all the same, so that no collective is left out; it counts nowhere.

    Args:
        owners: (N,) int64, the rank that computes each row; N >= 1.
        rank: of this process.
        ranks: R, their number.
    """

    def __init__(self, owners: Tensor, rank: int, ranks: int) -> None:
        self.owners, self.rank, self.ranks = owners, rank, ranks
        self.positions = [(owners == number).nonzero().squeeze(1) for number in range(ranks)]
        self.counts = [len(rows) for rows in self.positions]
        self.total, self.count = len(owners), self.counts[rank]
        self.rows = self.positions[rank] if self.count else torch.zeros(1, dtype=torch.long)
        """(n,) int64, n >= 1: positions in the step of what this rank computes."""
        self.weight = ranks if self.count else 0

    def own(self, rows: Tensor, dim: int = 0) -> Tensor:
        return rows.index_select(dim, self.rows.to(rows.device))

    def gather(self, rows: Tensor) -> Tensor:
        return _Gather.apply(rows, self)

    def mean(self, values: Tensor) -> Tensor:
        return self.sum(values.mean() * self.count) / self.total

    def sum(self, value: Tensor) -> Tensor:
        return _Sum.apply(value, self)

    def real(self, rows: Tensor) -> Tensor:
        return rows[: self.count]

    def alike(self, total: int) -> "Share":
        return Share(consecutive(total, self.ranks), self.rank, self.ranks)

    def take(self, positions: Tensor) -> "tuple[Share, Tensor]":
        positions = positions.cpu()
        taken = Share(self.owners[positions], self.rank, self.ranks)
        place = torch.zeros(self.total, dtype=torch.long)
        place[self.rows] = torch.arange(len(self.rows))
        mine = place[positions[taken.rows]] if taken.count else torch.zeros(1, dtype=torch.long)
        return taken, mine

    def joined(self, parts: "Sequence[tuple[WholeStep, Tensor]]") -> "tuple[Share, Tensor]":
        owners = torch.cat([share.owners for share, _ in parts])  # type: ignore[attr-defined]
        together = Share(owners, self.rank, self.ranks)
        rows = torch.cat([share.real(rows) for share, rows in parts])
        return together, rows if together.count else parts[0][1][:1]


def dealt(total: int, rank: int, ranks: int) -> Share | None:
    """Equal shares, to one row, of consecutive rows of a step of `total` rows; None for one process."""
    if ranks == 1:
        return None
    return Share(consecutive(total, ranks), rank, ranks)


def consecutive(total: int, ranks: int) -> Tensor:
    """The rank (total,) of each row, where ranks get equal numbers of consecutive rows, to one."""
    return torch.arange(total) * ranks // total


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, share: Share) -> Tensor:
        ctx.share = share
        sent = rows.new_zeros(max(share.counts), *rows.shape[1:])
        sent[: share.count] = rows[: share.count]
        received = [torch.empty_like(sent) for _ in share.counts]
        dist.all_gather(received, sent)
        together = rows.new_empty(share.total, *rows.shape[1:])
        for positions, part in zip(share.positions, received, strict=True):
            together[positions.to(rows.device)] = part[: len(positions)]
        return together

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        share: Share = ctx.share
        return share.own(gradient) * share.weight, None


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, share: Share) -> Tensor:
        ctx.ranks = share.ranks
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.ranks, None
