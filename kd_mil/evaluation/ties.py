"""Probabilities that differ by rounding alone are one probability."""

from torch import Tensor

TOLERANCE = 1e-5
"""Of log-odds, relative where they exceed 1: what sums over thousands of instances lose in single precision."""


def without_rounding(probs: Tensor) -> Tensor:
    """The rows of probs (B, C) float64, those that agree up to `TOLERANCE` replaced by one of them.

    Bags that a network cannot tell apart differ in their last digits, by their size: ranked by those, they would seem
    to be told apart by more, or by less, than chance.
    """
    odds = probs.log() - (-probs).log1p()
    result, order, leader = probs.clone(), odds[:, -1].argsort().tolist(), None
    for row in order:
        if leader is not None and _agree(odds[row], odds[leader]):
            result[row] = probs[leader]
        else:
            leader = row
    return result


def _agree(some: Tensor, other: Tensor) -> bool:
    return bool(((some - other).abs() <= TOLERANCE * other.abs().clamp_min(1)).all())
