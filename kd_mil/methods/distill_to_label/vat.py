"""How Distill-to-Label (arXiv 1907.12926) disturbs a bag: noise instances, moves of every instance, random subsets.

VAT(delta=0.05).perturb(clean, bag_logits)  # (N, ...), each instance moved within its ball
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from kd_mil.core.checks import at_least, share
from kd_mil.core.errors import UserError
from kd_mil.core.machine.batch_statistics import memory_format
from kd_mil.core.machine.dealing import dealing, draw_rows
from kd_mil.core.machine.shares import WholeStep
from kd_mil.models.segments import kept_positions, segment_ids

TINY_STEP = 1e-2
"""Share of delta at which the adversarial direction is measured."""


class PackedViews(NamedTuple):
    """Packed bags (clean, with noise, perturbed, subsets in turn) as positions into [clean; noise; perturbed]."""

    positions: Tensor
    """(M,) int64."""
    sizes: list[int]
    """Of V * B bags, view after view, in each the B bags."""
    names: tuple[str, ...]
    """(V,) `clean`, `noise`, `perturbation`, `subset`, `subset`, ..."""


class VAT(nn.Module):
    """Virtual adversarial training of bags (Thiagarajan et al. 2019, Sec. III-B): what is disturbed and how it counts.

    The paper gives the weights alone; the rest are readings of it. Ranges of values are those of the training data
    after preprocessing, by channel; the perturbation is random in the paper, in spite of the name.

    Args:
        label_weight, noise_weight, perturbation_weight, entropy_weight: lambda_c, lambda_n, lambda_delta, lambda_e of
            Eq. 3. Of the last three, a weight of 0 leaves the term out.
        noise_ratio: noise instances, uniform in the range of the data, as a share of the bag; at least one.
        delta: radius of the ball around an instance, as a share of the range of values.
        norm: `linf`, each value moves by at most delta, or `l2`, the root mean square of the moves is at most delta.
        keep_ratio: share of the bag that a subset keeps; at least one instance stays and, of two or more, one goes.
        subsets: how many subsets are drawn; their entropies are averaged.
        mode: `random` perturbation, or the `adversarial` one: delta away in the direction that one step of power
            iteration finds to change the prediction most (Miyato et al. 2018, arXiv 1704.03976).
        detach_target: the clean prediction is a constant target.

    Raises:
        UserError: a setting out of range.
    """

    low: Tensor
    high: Tensor

    def __init__(
        self,
        label_weight: float = 1.0,
        noise_weight: float = 0.5,
        perturbation_weight: float = 0.3,
        entropy_weight: float = 0.3,
        noise_ratio: float = 0.2,
        delta: float = 0.05,
        norm: Literal["linf", "l2"] = "linf",
        keep_ratio: float = 0.8,
        subsets: int = 1,
        mode: Literal["random", "adversarial"] = "random",
        detach_target: bool = True,
    ) -> None:
        super().__init__()
        self.label_weight, self.noise_weight = label_weight, noise_weight
        self.perturbation_weight, self.entropy_weight = perturbation_weight, entropy_weight
        self.noise_ratio, self.delta, self.keep_ratio, self.subsets = noise_ratio, delta, keep_ratio, subsets
        self.norm, self.mode, self.detach_target = norm, mode, detach_target
        self._check()
        self.register_buffer("low", torch.zeros(1))
        self.register_buffer("high", torch.ones(1))

    def _check(self) -> None:
        weights = ("label_weight", "noise_weight", "perturbation_weight", "entropy_weight")
        for name in (*weights, "noise_ratio", "delta"):
            at_least(f"method.vat.{name}", getattr(self, name), 0)
        share("method.vat.keep_ratio", self.keep_ratio, zero=False)
        if self.subsets < 1:
            raise UserError(f"method.vat.subsets={self.subsets}: at least 1; method.vat.entropy_weight=0 goes without")

    def allocate(self, channels: int) -> None:
        """Size the range for instances (channels, ...)."""
        self.low, self.high = self.low.new_zeros(channels), self.high.new_ones(channels)

    def set_range(self, low: Tensor, high: Tensor) -> None:
        """Take the smallest and largest preprocessed value of each channel (C,) in the training data."""
        self.low.copy_(low)
        self.high.copy_(high)

    @property
    def weights(self) -> dict[str, float]:
        """Weights of Eq. 3 by term; terms of weight 0 but the label's are left out."""
        disturbed = {
            "noise": self.noise_weight,
            "perturbation": self.perturbation_weight,
            "subset": self.entropy_weight,
        }
        return {"label": self.label_weight} | {name: weight for name, weight in disturbed.items() if weight > 0}

    def noise(self, clean: Tensor, sizes: Sequence[int]) -> tuple[Tensor, list[int]]:
        """Noise instances (M, ...), uniform in the range of the data, bag after bag, and how many each bag has."""
        counts = [max(1, count) for count in rounded_shares(self.noise_ratio, sizes)]
        uniform = torch.rand(sum(counts), *clean.shape[1:], dtype=clean.dtype, device=clean.device)
        low, high = self._per_value(self.low, clean), self._per_value(self.high, clean)
        return low + (high - low) * uniform, counts

    def perturb(self, clean: Tensor, bag_logits: Callable[[Tensor], Tensor], step: WholeStep | None = None) -> Tensor:
        """The instances (N, ...), each moved within its ball.

        Args:
            clean: (N, ...) preprocessed instances.
            bag_logits: from instances to the logits (B, C) of their bags; asked in `adversarial` mode only.
            step: of which the instances are a share.
        """
        radius = self.delta * self._per_value(self.high - self.low, clean)
        with dealing(step):
            move = self._random_move(clean)
        if self.mode == "random":
            return clean + radius * move
        gradient = adversarial_gradient(clean, TINY_STEP * radius * move, bag_logits) * radius
        if self.norm == "linf":
            return clean + radius * gradient.sign()
        return clean + radius * gradient / root_mean_square(gradient)

    def _random_move(self, clean: Tensor) -> Tensor:
        """(N, ...) uniform in the unit ball: of the largest value, or of the root mean square."""
        if self.norm == "linf":
            return 2 * draw_rows(len(clean), lambda count: torch.rand_like(rows_like(clean, count))) - 1
        direction = draw_rows(len(clean), lambda count: torch.randn_like(rows_like(clean, count)))
        one_each = [1] * (clean.dim() - 1)
        depth = draw_rows(
            len(clean), lambda count: torch.rand(count, *one_each, dtype=clean.dtype, device=clean.device)
        )
        return direction / root_mean_square(direction) * depth ** (1 / clean[0].numel())

    def subset(self, sizes: Sequence[int]) -> tuple[Tensor, list[int]]:
        """Random subsets without replacement: ascending positions (M,) in the packed batch, and their sizes."""
        shares = zip(rounded_shares(self.keep_ratio, sizes), sizes, strict=True)
        kept = [max(1, min(share, size - 1)) for share, size in shares]
        total, lengths, left = sum(sizes), self._of_bags(sizes), self._of_bags(kept)
        owners, starts = segment_ids(lengths, total), lengths.cumsum(0) - lengths
        shuffled = torch.rand(total, device=lengths.device).argsort()
        shuffled = shuffled[owners[shuffled].argsort(stable=True)]  # bag after bag, shuffled within
        rank = torch.arange(total, device=lengths.device) - starts[owners]
        return shuffled[kept_positions(rank < left[owners], sum(kept))].sort().values, kept

    def views(self, sizes: Sequence[int], noise_counts: Sequence[int] | None, perturbed: bool) -> PackedViews:
        """Pack all views of the bags, to go through an aggregator at once.

        Args:
            sizes: of the B clean bags, N instances in all.
            noise_counts: noise instances of each bag, None without noise.
            perturbed: whether there are perturbed instances.
        """
        total, owners = sum(sizes), segment_ids(self._of_bags(sizes), sum(sizes))
        clean = torch.arange(total, device=owners.device)
        parts, view_sizes, names, noises = [clean], [*sizes], ["clean"], 0
        if noise_counts is not None:
            noises = sum(noise_counts)
            noise_owners = segment_ids(self._of_bags(noise_counts), noises)
            parts.append(torch.cat([owners, noise_owners]).argsort(stable=True))  # noise at the end of its bag
            view_sizes += [size + more for size, more in zip(sizes, noise_counts, strict=True)]
            names.append("noise")
        if perturbed:
            parts.append(total + noises + clean)
            view_sizes += sizes
            names.append("perturbation")
        for _ in range(self.subsets if self.entropy_weight > 0 else 0):
            positions, kept = self.subset(sizes)
            parts.append(positions)
            view_sizes += kept
            names.append("subset")
        return PackedViews(torch.cat(parts), view_sizes, tuple(names))

    def _of_bags(self, counts: Sequence[int]) -> Tensor:
        """Counts as (B,) int64 beside the data."""
        return torch.tensor(counts).to(self.low.device, non_blocking=True)

    @staticmethod
    def _per_value(by_channel: Tensor, like: Tensor) -> Tensor:
        return by_channel.to(like.dtype).view(-1, *[1] * (like.dim() - 2))


def rounded_shares(ratio: float, sizes: Sequence[int]) -> list[int]:
    """A share of each size, rounded half to even, in single precision as PyTorch multiplies whole numbers."""
    return np.rint(np.float32(ratio) * np.asarray(sizes, np.float32)).astype(int).tolist()


def adversarial_gradient(clean: Tensor, move: Tensor, bag_logits: Callable[[Tensor], Tensor]) -> Tensor:
    """Gradient (N, ...) of the divergence from the clean prediction at a small move; parameters get none."""
    with torch.no_grad():
        target = bag_logits(clean).softmax(1)
    with torch.enable_grad():
        move = move.detach().requires_grad_()
        loss = -(target * bag_logits(clean + move).log_softmax(1)).sum()
        [gradient] = torch.autograd.grad(loss, [move])
    return gradient


def rows_like(values: Tensor, count: int) -> Tensor:
    """Room for `count` rows that lie in memory as those of the values (N, ...): random numbers fill it in its order."""
    shape = (count, *values.shape[1:])
    return torch.empty(shape, dtype=values.dtype, device=values.device, memory_format=memory_format(values))


def root_mean_square(values: Tensor) -> Tensor:
    """(N, 1, ...) of values (N, ...), never 0."""
    mean = values.pow(2).flatten(1).mean(1).sqrt().clamp_min(torch.finfo(values.dtype).tiny)
    return mean.view(-1, *[1] * (values.dim() - 1))
