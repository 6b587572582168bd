"""Eq. 1 of resolution-based distillation (DiPalma et al. 2021, arXiv 2101.04170): the loss of a pair's two outputs.

PairLoss()(student(small), teacher(large))["total"].backward()
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from kd_mil.core.checks import above, at_least
from kd_mil.methods.resolution.losses import Reduction, Resize, pixel_floor, pixel_loss, resize_map, soft_loss
from kd_mil.models.image_classifier import ImageOutput


@dataclass(frozen=True)
class PairLoss:
    """Eq. 1 of a pair's two outputs: `PairLoss()(student(small), teacher(large))["total"].backward()`.

    Raises:
        UserError: a setting out of range.
    """

    temperature: float = 1.0
    """T of Eq. 2."""
    w_soft: float = 1.0
    w_pixel: float = 1.0
    """Weights of the two terms; 1 in Eq. 1."""
    resize: Sequence[Resize] = ("maxpool", "bicubic")
    """The g of Eq. 3; none leaves the pixel loss out."""
    clamp_min: float | None = None
    """Smallest value of the bicubic map; None as published."""
    reduction: Reduction = "mean"
    """Of the pixel loss within an image."""

    def __post_init__(self) -> None:
        above("method.loss.temperature", self.temperature)
        at_least("method.loss.w_soft", self.w_soft, 0)
        at_least("method.loss.w_pixel", self.w_pixel, 0)

    def __call__(self, student: ImageOutput, teacher: ImageOutput) -> dict[str, Tensor]:
        """Losses of B pairs: `soft`, `pixel` and what lies above its floor, `pixel` by each resizing, `total`."""
        losses = {"soft": soft_loss(student.logits, teacher.logits, self.temperature)}
        total = self.w_soft * losses["soft"]
        height, width = student.feature_map.shape[-2:]
        targets = [resize_map(teacher.feature_map, (height, width), resize, self.clamp_min) for resize in self.resize]
        if targets:
            losses["pixel"] = pixel_loss(student.feature_map, targets, self.reduction)
            losses["pixel_excess"] = losses["pixel"] - pixel_floor(targets, self.reduction)
            for name, target in zip(self.resize, targets, strict=True):
                losses[f"pixel_{name}"] = pixel_loss(student.feature_map, [target], self.reduction)
            total = total + self.w_pixel * losses["pixel"]
        return losses | {"total": total}
