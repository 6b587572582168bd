"""Hard positive instance mining of WENO (arXiv 2210.03664): which instances of a positive bag the teacher gets to see.

HardPositiveMining("threshold", threshold=0.5).keep(student_probs, sizes, labels)  # mask (N,)
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from kd_mil.core.checks import at_least, share
from kd_mil.core.errors import UserError
from kd_mil.models.segments import per_instance, segment_ids, segment_largest, segment_ranks, segment_smallest


@dataclass(frozen=True)
class HardPositiveMining:
    """Drop from positive bags what the student already finds, WENO Sec. 3.3; a bag is never emptied.

    Raises:
        UserError: threshold or start_share outside [0, 1], fraction outside [0, 1), negative start epoch; in training,
            a start_share of a run without an end.
    """

    mode: Literal["off", "threshold", "top_fraction"] = "off"
    threshold: float = 0.5
    """Mode `threshold`: drop instances whose student probability exceeds it."""
    fraction: float = 0.1
    """Mode `top_fraction`: drop this share of each positive bag, highest student probabilities first."""
    start_epoch: int = 10
    """First epoch (from 0) at which instances are dropped: the student must have learned something first."""
    start_share: float | None = None
    """Share of the run's epochs before the first one with mining, in place of `start_epoch`; None for the latter."""
    fallback: Literal["hardest", "easiest", "all"] = "hardest"
    """What is kept where the threshold would drop all: one instance (the released code keeps the easiest), or all."""

    def __post_init__(self) -> None:
        share("hpm.threshold", self.threshold)
        share("hpm.fraction", self.fraction, one=False)
        at_least("hpm.start_epoch", self.start_epoch, 0)
        if self.start_share is not None:
            share("hpm.start_share", self.start_share)

    def active(self, epoch: int, run_epochs: int | None = None) -> bool:
        """Whether instances are dropped in an epoch (from 0) of a run of `run_epochs`, None or -1 for no end."""
        if self.mode == "off" or self.start_share is None:
            return self.mode != "off" and epoch >= self.start_epoch
        if run_epochs in (None, -1):
            raise UserError(f"hpm.start_share={self.start_share} needs trainer.max_epochs")
        return epoch >= self.start_share * run_epochs

    def keep(self, student_probs: Tensor, sizes: Tensor, labels: Tensor) -> Tensor:
        """Mask (N,) of the instances that stay, from probabilities (N,), bag sizes (B,) and bag labels (B,)."""
        if self.mode == "threshold":
            return keep_below_threshold(student_probs, sizes, labels, self.threshold, self.fallback)
        return keep_below_top_fraction(student_probs, sizes, labels, self.fraction)


def keep_below_threshold(
    student_probs: Tensor, sizes: Tensor, labels: Tensor, threshold: float, fallback: str = "hardest"
) -> Tensor:
    """Mask (N,): all of a negative bag; of a positive one what lies at or below the threshold, but at least one."""
    probs, total = student_probs.detach(), len(student_probs)
    lowest = segment_smallest(probs, sizes)
    limit = lowest.clamp_min(threshold) if fallback == "hardest" else torch.full_like(lowest, threshold)
    if fallback == "all":
        limit = limit.masked_fill(lowest > threshold, math.inf)
    limit = limit.masked_fill(labels == 0, math.inf)
    keep = ~(probs > per_instance(limit, sizes, total))  # NaN stays: divergence is reported, not mined
    if fallback != "easiest":
        return keep
    highest = segment_largest(probs, sizes).masked_fill(lowest <= threshold, math.inf)
    return keep | (probs >= per_instance(highest, sizes, total))


def keep_below_top_fraction(student_probs: Tensor, sizes: Tensor, labels: Tensor, fraction: float) -> Tensor:
    """Mask (N,): of each positive bag all but its floor(fraction * n) highest probabilities."""
    owner = segment_ids(sizes, len(student_probs))
    dropped = (fraction * sizes.double()).long().clamp(max=sizes - 1) * (labels > 0)
    return segment_ranks(student_probs, sizes) >= dropped[owner]
