"""Losses of IFKD (He, Li, Zemp, arXiv 2407.10274) as in its authors' code; pixel maps (B, H, W), in float32.

distillation_loss(sides, fused, teacher_sides, teacher_fused, labels, mode="fusion").mean()
"""

import math
from typing import Literal

import torch
from torch import Tensor

from kd_mil.methods.base.pixel_losses import (
    LEAST_PROB,
    cross_entropy_of,
    cross_entropy_of_logits,
    easy_weights,
    soft_dice,
)

DistillationMode = Literal["fusion", "layer", "output"]
PixelTarget = Literal["threshold", "soft", "trunc"]
PixelSpace = Literal["logit", "prob"]

GM_EXPONENT = 4.0


def polar_dice(probs: Tensor, targets: Tensor, labels: Tensor) -> Tensor:
    """Dice with polarity (B,): of the foreground in positive images, of the background in negative ones.

    Args:
        probs, targets: (B, H, W) in [0, 1].
        labels: (B,) int64 in {0, 1}.
    """
    positive = (labels > 0).view(-1, 1, 1)
    probs, targets = probs.float(), targets.float()
    return soft_dice(torch.where(positive, probs, 1 - probs), torch.where(positive, targets, 1 - targets))


def teacher_dice(sides: Tensor, fused: Tensor, labels: Tensor, pasted: Tensor | None = None) -> Tensor:
    """Stage one, L^t: Dice of each side and of the fused map against a mask of the image label throughout.

    Args:
        sides: (B, S, H, W) side outputs in [0, 1].
        fused: (B, H, W) their fixed convex combination f_w.
        labels: (B,) int64 in {0, 1}.
        pasted: (B, H, W) bool, pixels known to be negative; None = none.

    Returns:
        (B,).
    """
    label_mask = teacher_targets(torch.ones_like(fused), labels, pasted)
    return torch.stack([polar_dice(probs, label_mask, labels) for probs in (*sides.unbind(1), fused)]).sum(0)


def generalised_mean(probs: Tensor, exponent: float = GM_EXPONENT, pasted: Tensor | None = None) -> Tensor:
    """GM_r(p) = (mean of p^r over the pixels)^(1/r), the probability (B,) of an image from its map (B, H, W).

    Pixels `pasted` (B, H, W), never all of an image, are left out. By way of logarithms: a power of a small probability
    is 0 in float32, and the slope of a root there infinite.
    """
    logs = exponent * probs.float().clamp_min(LEAST_PROB).log().flatten(1)
    if pasted is not None:
        logs = logs.masked_fill(pasted.flatten(1), -math.inf)
    return ((logs.logsumexp(1) - logs.isfinite().sum(1).log()) / exponent).exp()


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean (B,) of values (B, H, W) over the pixels of a mask (B, H, W) bool; 0 where it has none."""
    return (values * mask).flatten(1).sum(1) / mask.flatten(1).sum(1).clamp_min(1)


def teacher_gm_bce(
    sides: Tensor, fused: Tensor, labels: Tensor, exponent: float = GM_EXPONENT, pasted: Tensor | None = None
) -> Tensor:
    """The classic alternative of stage one: cross-entropy (B,) of the generalised mean of every map; see above.

    With pasted pixels, the mean is over the others, and that of the cross-entropy of the pasted ones is added.
    """
    maps = (*sides.unbind(1), fused)
    losses = [cross_entropy_of(generalised_mean(probs, exponent, pasted), labels.float()) for probs in maps]
    if pasted is not None:
        losses += [masked_mean(cross_entropy_of(probs, torch.zeros_like(fused)), pasted) for probs in maps]
    return torch.stack(losses).sum(0)


def teacher_targets(teacher_maps: Tensor, labels: Tensor, pasted: Tensor | None = None) -> Tensor:
    """T of L_kd: the teacher's map in positive images, 0 in negative ones and in pasted pixels; (B, ..., H, W)."""
    targets = teacher_maps.float() * (labels > 0).view(-1, *[1] * (teacher_maps.dim() - 1))
    if pasted is None:
        return targets
    return targets * ~pasted.view(len(pasted), *[1] * (targets.dim() - 3), *pasted.shape[1:])


def distillation_loss(
    sides: Tensor,
    fused: Tensor,
    teacher_sides: Tensor,
    teacher_fused: Tensor,
    labels: Tensor,
    mode: DistillationMode = "fusion",
    pasted: Tensor | None = None,
) -> Tensor:
    """L_kd, the Dice (B,) of the student's maps against the teacher's, Fig. 2.

    Args:
        sides, fused: the student's maps (B, S, H, W) and (B, H, W).
        teacher_sides, teacher_fused: the teacher's, no gradient.
        labels: (B,) int64 in {0, 1}; the target of negative images is 0, whatever the teacher says.
        mode: `fusion`, the teacher's fused map teaches every map (c); `layer`, side by side and fused by fused (a);
            `output`, fused by fused alone (b).
        pasted: (B, H, W) bool, pixels known to be negative; None = none.
    """
    whole = teacher_targets(teacher_fused, labels, pasted)
    loss = polar_dice(fused, whole, labels)
    if mode == "output":
        return loss
    parts = teacher_targets(teacher_sides, labels, pasted)
    for side, part in zip(sides.unbind(1), parts.unbind(1), strict=True):
        loss = loss + polar_dice(side, whole if mode == "fusion" else part, labels)
    return loss


def weighted_cross_entropy(
    fused: Tensor,
    targets: Tensor,
    target: PixelTarget = "threshold",
    space: PixelSpace = "logit",
    easy_examples: bool = True,
) -> Tensor:
    """L_wce (B,): cross-entropy of the fused map against the pseudo-mask, easy pixels weighing more (OEEM).

    Args:
        fused: (B, H, W) the student's fused map.
        targets: (B, H, W) `teacher_targets`, no gradient.
        target: how the map becomes a pseudo-mask m: `threshold` at 0.5, `soft` as it is, or `trunc` as in the
            authors' code, where m = 1 only at a probability of exactly 1.
        space: `logit`, ordinary cross-entropy of the probability p; `prob`, as in the authors' code, [1 - p, p] taken
            for logits, so that a pixel costs between 0.313 and 1.313.
        easy_examples: weight pixels by softmax(-cross-entropy) over the image, divided by its mean; no weights where
            the pseudo-mask holds one class alone.
    """
    masks = {"threshold": (targets >= 0.5).float(), "soft": targets.float(), "trunc": targets.float().trunc()}[target]
    losses = cross_entropy_of(fused, masks) if space == "logit" else cross_entropy_of_unscaled(fused, masks)
    losses = losses.flatten(1)
    if easy_examples:
        losses = losses * easy_weights(losses.detach(), masks.flatten(1))
    return losses.mean(1)


def cross_entropy_of_unscaled(probs: Tensor, targets: Tensor) -> Tensor:
    """The same with [1 - p, p] for logits: t softplus(1 - 2p) + (1 - t) softplus(2p - 1)."""
    return cross_entropy_of_logits(2 * probs.float() - 1, targets)
