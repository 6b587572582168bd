"""Rectangles of negative images inside positive ones, whose pixels are known to be negative from image labels alone.

CutMix (Yun et al. 2019, arXiv 1905.04899) under multiple-instance learning: a network that calls tissue tumour for what
lies beside it is wrong in such a rectangle, and learns so. Not in IFKD's paper.

images, pasted = paste_negatives(images, labels, 0.7)
"""

import torch
from torch import Tensor

from kd_mil.core.machine.dealing import draw_rows
from kd_mil.core.machine.shares import WHOLE, WholeStep

LEAST_SIDE, MOST_SIDE = 0.25, 0.75
"""Of a rectangle, in sides of the image."""


def paste_negatives(
    images: Tensor, labels: Tensor, share: float, deal: WholeStep = WHOLE
) -> tuple[Tensor, Tensor | None]:
    """Paste into positive images a rectangle of a negative one of the same step.

    A rectangle may cover all tumour of an image, whose label is then wrong: rare, where tumour is not a speck.

    Args:
        images: (b, C, H, W) that this rank computes, normalised.
        labels: (B,) int64 in {0, 1}, of all images of the step.
        share: of the positive images, in [0, 1]; 0 = none.
        deal: how the images are dealt over ranks.

    Returns:
        The images, and which pixels (b, H, W) are pasted; None for a share of 0.
    """
    if share == 0:
        return images, None
    own, donors = deal.own(labels), deal.gather(images.detach())
    drawn = draw_rows(len(images), lambda count: torch.rand(count, 5 + len(labels), device=images.device))
    chosen = (own > 0) & (drawn[:, 0] < share) & (labels == 0).any()
    inside = rectangles(drawn[:, 1:5], *images.shape[-2:]) & chosen.view(-1, 1, 1)
    donor = drawn[:, 5:].masked_fill(labels > 0, -1).argmax(1)
    return torch.where(inside[:, None], donors[donor], images), inside


def rectangles(places: Tensor, height: int, width: int) -> Tensor:
    """Masks (N, H, W) of rectangles from (N, 4) numbers in [0, 1]: height, width, and where in the room left."""
    sides = LEAST_SIDE + places[:, :2] * (MOST_SIDE - LEAST_SIDE)
    starts = places[:, 2:] * (1 - sides)
    within = [
        (at >= starts[:, axis, None]) & (at < (starts + sides)[:, axis, None])
        for axis, at in enumerate(_middles(size, places.device) for size in (height, width))
    ]
    return within[0][:, :, None] & within[1][:, None, :]


def _middles(size: int, device: torch.device) -> Tensor:
    """Middles (size,) of the pixels of a side, which is 1 long."""
    return (torch.arange(size, device=device) + 0.5) / size
