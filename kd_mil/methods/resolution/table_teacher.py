"""Losses of a student whose teacher is a table: probabilities of tiles, and attention over slides.

taught_loss(logits, probs, temperature=2.0)
"""

from torch import Tensor

from kd_mil.methods.resolution.losses import soft_loss
from kd_mil.models.segments import segment_sum

LEAST_PROB = 1e-6
"""A teacher's probability of 0 has no logarithm."""


def taught_loss(logits: Tensor, targets: Tensor, temperature: float = 1.0) -> Tensor:
    """Eq. 2 of DiPalma et al. 2021 with the logarithms of probabilities as logits, mean over the tiles.

    A tile without a target counts as one without loss, so that ranks average to what one process has.

    Args:
        logits: (M, C) of the student.
        targets: (M, C) probabilities of the teacher, NaN rows where it said nothing.
        temperature: T > 0.
    """
    known = targets.isfinite().all(1, keepdim=True)
    teacher = targets.where(known, 1.0).clamp_min(LEAST_PROB).log()
    return soft_loss(logits.where(known, 0.0), teacher, temperature)  # equal logits, no divergence, no gradient


def guided_attention_loss(attention: Tensor, guide: Tensor, sizes: Tensor) -> Tensor:
    """KL(guide || attention) of each bag that has a guide, mean over the bags: LRMIL's guided attention, T = 1.

    Args:
        attention: (N,) of the aggregator, sums to 1 over each bag.
        guide: (N,) of the teacher, sums to 1 over each bag, or is 0 throughout where it said nothing.
        sizes: (B,).
    """
    ratio = guide.clamp_min(LEAST_PROB).log() - attention.clamp_min(LEAST_PROB).log()
    return segment_sum(guide * ratio, sizes).mean()
