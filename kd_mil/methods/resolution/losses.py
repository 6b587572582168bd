"""Losses of resolution-based distillation (DiPalma et al. 2021, arXiv 2101.04170).

pixel_loss(student_map, [resize_map(teacher_map, student_map.shape[-2:], "maxpool")])
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Resize = Literal["maxpool", "bicubic"]
Reduction = Literal["mean", "sum"]


def soft_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Eq. 2: T^2 KL(teacher || student) of the softened class probabilities, summed over classes, mean over images.

    Args:
        student_logits, teacher_logits: (B, C).
        temperature: T > 0; the factor T^2 keeps the size of the gradient.
    """
    student = F.log_softmax(student_logits.float() / temperature, dim=1)
    teacher = F.log_softmax(teacher_logits.float() / temperature, dim=1)
    return temperature**2 * F.kl_div(student, teacher, reduction="batchmean", log_target=True)


def resize_map(feature_map: Tensor, size: tuple[int, int], resize: Resize, clamp_min: float | None = None) -> Tensor:
    """The g of Eq. 3: the teacher's map (B, E, H, W) at the student's size (h, w).

    Args:
        resize: `maxpool` (adaptive) or `bicubic` (without antialiasing, as in the authors' code).
        clamp_min: smallest value of the bicubic map, which undershoots 0; None leaves it.
    """
    feature_map = feature_map.float()
    if resize == "maxpool":
        return F.adaptive_max_pool2d(feature_map, size)
    resized = F.interpolate(feature_map, size, mode="bicubic", align_corners=False)
    return resized if clamp_min is None else resized.clamp_min(clamp_min)


def pixel_loss(student_map: Tensor, targets: Sequence[Tensor], reduction: Reduction = "mean") -> Tensor:
    """Eq. 3: squared distance of the student's map to each resized teacher map, averaged over those.

    Args:
        student_map: (B, E, h, w).
        targets: the teacher's maps after `resize_map`, each (B, E, h, w); at least one.
        reduction: within an image, `mean` over the elements (authors' code) or `sum` (the paper's norm).
    """
    return torch.stack([_distance(student_map.float(), target, reduction) for target in targets]).mean()


def pixel_floor(targets: Sequence[Tensor], reduction: Reduction = "mean") -> Tensor:
    """Smallest value Eq. 3 can take: no map equals two different targets, the best one is their mean.

    Two targets a and b give the mean of (a - b)^2, over 4.
    """
    return pixel_loss(torch.stack(list(targets)).mean(0), targets, reduction)


def _distance(one: Tensor, other: Tensor, reduction: Reduction) -> Tensor:
    squares = (one - other).square()
    return squares.mean() if reduction == "mean" else squares.sum() / len(squares)
