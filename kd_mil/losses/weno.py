"""WENO (Qu et al., NeurIPS 2022): pseudo-labels from attention, and the student's loss."""

import torch.nn.functional as F
from torch import Tensor

NARROWEST_RANGE = 1e-5
"""Scores closer together than this are one score: dividing by less would turn rounding errors into labels."""


def attention_pseudo_labels(
    scores: Tensor, bag_labels: Tensor, low: Tensor, high: Tensor, range_of_bag: bool = False
) -> Tensor:
    """Soft instance labels from teacher attention: Eq. 13, with norm() of Eq. 7.

    Args:
        scores: (M,) teacher attention before the softmax, without gradient.
        bag_labels: (M,) label in {0, 1} of the bag each instance comes from.
        low, high: range of the scores in the last teacher phase, (1,) or (M,); equal on all ranks.
        range_of_bag: the range is that of the instance's own bag.

    Returns:
        (M,) in [0, 1]; exactly 0 for every instance of a negative bag. Where the range is the bag's own and has
        no width, as in a bag of one, 1 in a positive bag: nothing tells its instances apart.

    Note:
        Eq. 6-7 do not say over what minimum and maximum run, nor whether attention is taken before or after its
        softmax: docs/fidelity.md, "norm".
    """
    scaled = ((scores - low) / (high - low).clamp_min(NARROWEST_RANGE)).clamp(0, 1)
    if range_of_bag:
        scaled = scaled.masked_fill(high - low < NARROWEST_RANGE, 1.0)
    return scaled * (bag_labels > 0)


def student_loss(logits: Tensor, pseudo_labels: Tensor, negative_weight: float = 0.5) -> Tensor:
    """Cross-entropy against soft labels, Eq. 15: -mean[w (1 - y) log q0 + (1 - w) y log q1], q = softmax(logits).

    Args:
        logits: (M, 2) of the student.
        pseudo_labels: (M,) y in [0, 1].
        negative_weight: w in (0, 1); 0.5 is half of Eq. 15, the released code uses 0.1 or 0.2.
    """
    margin = logits[:, 1] - logits[:, 0]
    negative = negative_weight * (1 - pseudo_labels) * F.softplus(margin)
    positive = (1 - negative_weight) * pseudo_labels * F.softplus(-margin)
    return (negative + positive).mean()
