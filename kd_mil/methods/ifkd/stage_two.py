"""What IFKD's student learns from in stage two (He, Li, Zemp, arXiv 2407.10274)."""

from dataclasses import dataclass

from torch import Tensor

from kd_mil.core.checks import at_least
from kd_mil.methods.ifkd.losses import (
    DistillationMode,
    PixelSpace,
    PixelTarget,
    distillation_loss,
    teacher_targets,
    weighted_cross_entropy,
)
from kd_mil.models.outputs import SegmentationOutput


@dataclass(frozen=True)
class PixelCrossEntropy:
    """The weighted cross-entropy L_wce of stage two; see `weighted_cross_entropy` of the losses.

    Raises:
        UserError: a negative weight.
    """

    weight: float = 2.0
    """lambda_wce; 0 = none."""
    target: PixelTarget = "threshold"
    space: PixelSpace = "logit"
    easy_examples: bool = True

    def __post_init__(self) -> None:
        at_least("method.wce.weight", self.weight, 0)


def student_terms(
    student: SegmentationOutput,
    teacher: SegmentationOutput,
    labels: Tensor,
    mode: DistillationMode,
    how: PixelCrossEntropy,
    pasted: Tensor | None = None,
) -> dict[str, Tensor]:
    """L_kd as `distillation` and, where it has a weight, L_wce as `wce`: (B,) of the images, not yet weighted.

    Args:
        student, teacher: maps of B images, the teacher's without gradient.
        labels: (B,) int64 in {0, 1}.
        mode: which map teaches which.
        how: L_wce.
        pasted: (B, H, W) bool, pixels known to be negative; None = none.
    """
    distilled = distillation_loss(student.sides, student.fused, teacher.sides, teacher.fused, labels, mode, pasted)
    if how.weight == 0:
        return {"distillation": distilled}
    targets = teacher_targets(teacher.fused, labels, pasted)
    pixels = weighted_cross_entropy(student.fused, targets, how.target, how.space, how.easy_examples)
    return {"distillation": distilled, "wce": pixels}
