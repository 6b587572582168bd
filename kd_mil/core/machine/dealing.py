"""Random numbers and batch statistics of rows that are dealt over ranks: as one process would have them.

Within `dealing`, whatever network runs, dropout is drawn for all rows of the step and each rank keeps that of its own,
so that ranks do not show and their generators stay alike; and BatchNorm takes its statistics over the rows of all.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from kd_mil.core.machine.batch_statistics import synced_batch_norm
from kd_mil.core.machine.shares import WHOLE, Share, WholeStep

_present: ContextVar[Share | None] = ContextVar("share", default=None)


@contextmanager
def dealing(share: WholeStep | None) -> Iterator[WholeStep]:
    """Compute a share of a step for a while; without one, all of it.

        with dealing(batch.share) as deal:
            features = deal.gather(encoder(batch.instances))

    What is computed on the rows of all ranks belongs behind it.
    """
    if not isinstance(share, Share):
        yield WHOLE
        return
    token = _present.set(share)
    try:
        with _DealtRows(share):
            yield share
    finally:
        _present.reset(token)


def rows_of_step(count: int) -> int:
    """Rows that the step has on all ranks, of which this one computes `count`."""
    share = _present.get()
    return count if share is None else share.total


def draw_rows(count: int, draw: Callable[[int], Tensor], dim: int = 0) -> Tensor:
    """Random numbers `draw(count)` for the rows that this rank computes, one process's for them.

    Args:
        count: of the rows.
        draw: makes random numbers for a number of rows.
        dim: which dimension of them is that of the rows.
    """
    share = _present.get()
    return draw(count) if share is None else share.own(draw(share.total), dim)


class _DealtRows(TorchFunctionMode):
    """Puts functions that look at, or draw for, a whole batch in the place of those of PyTorch."""

    def __init__(self, share: Share) -> None:
        super().__init__()
        self.share = share

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        replaced = REPLACED.get(func)
        kwargs = kwargs or {}
        return func(*args, **kwargs) if replaced is None else replaced(self.share, *args, **kwargs)


def _for_all(share: Share, rows: Tensor, draw: Callable[[torch.Size], Tensor]) -> Tensor:
    """Random numbers of the shape of `rows` (k n, ...), k for each row: drawn for the whole step, cut to this share."""
    each, left = divmod(len(rows), len(share.rows)) if rows.dim() else (0, 1)
    if left:
        raise RuntimeError(f"random numbers of shape {tuple(rows.shape)} for {len(share.rows)} rows cannot be dealt")
    drawn = draw(torch.Size([each * share.total, *rows.shape[1:]]))
    return share.own(drawn.view(share.total, each, *rows.shape[1:])).flatten(0, 1)


def _native_dropout(share: Share, input: Tensor, p: float, train: bool | None) -> tuple[Tensor, Tensor]:
    if not train:
        return torch.native_dropout(input, p, train)
    keep = _for_all(share, input, lambda shape: torch.native_dropout(input.new_ones(shape), p, True)[1])
    return input * keep * (1 / (1 - p) if p < 1 else 0.0), keep


def _dropout(share: Share, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    if not training:
        return F.dropout(input, p, training, inplace)
    return input * _for_all(share, input, lambda shape: F.dropout(input.new_ones(shape), p, True))


def _feature_dropout(plain: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The same of a dropout of whole channels."""

    def dealt(share: Share, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if not training:
            return plain(input, p, training, inplace)
        return input * _for_all(share, input, lambda shape: plain(input.new_ones(shape), p, True))

    return dealt


def _bernoulli(share: Share, input: Tensor, p: float = 0.5, *, generator: Any = None) -> Tensor:
    drawn = _for_all(share, input, lambda shape: input.new_empty(shape).bernoulli_(p, generator=generator))
    return input.copy_(drawn)


def _refused_with_dropout(plain: Callable[..., Any], name: str) -> Callable[..., Any]:
    def checked(share: Share, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("dropout_p"):
            raise RuntimeError(f"{name} with dropout draws out of sight: it cannot be dealt over several processes")
        return plain(*args, **kwargs)

    return checked


REPLACED: dict[Any, Callable[..., Any]] = {
    F.batch_norm: synced_batch_norm,
    F.dropout: _dropout,
    torch.native_dropout: _native_dropout,
    Tensor.bernoulli_: _bernoulli,
    **{plain: _feature_dropout(plain) for plain in (F.dropout1d, F.dropout2d, F.dropout3d)},
    F.scaled_dot_product_attention: _refused_with_dropout(F.scaled_dot_product_attention, "attention"),
}
