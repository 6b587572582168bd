"""Pseudo-labels that a confident student corrects: the loss of weak-to-strong generalisation (arXiv 2312.09390).

LabelCorrection(weight=0.5).corrected(labels, logits, bag_labels, epoch, run_epochs)   # (M,)
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from kd_mil.core.checks import share
from kd_mil.methods.weno.ramp import ramped
from kd_mil.models.aggregators.pooling import positive_margin


@dataclass(frozen=True)
class LabelCorrection:
    """Mix pseudo-labels with what the student is sure of, at the rate of positives that the labels have.

    Not part of the WENO paper. DMKD (2025, arXiv 2505.12074) corrects labels by such means; how is not known.

    Raises:
        UserError: a share outside its range.
    """

    weight: float = 0.0
    """Share of the student's word in a label, in [0, 1]; 0 leaves labels as they are."""
    ramp: float = 0.1
    """Share of the run's epochs in which the weight grows from 0."""

    def __post_init__(self) -> None:
        share("method.correction.weight", self.weight)
        share("method.correction.ramp", self.ramp)

    def corrected(
        self, labels: Tensor, logits: Tensor, bag_labels: Tensor, epoch: int, run_epochs: int | None
    ) -> Tensor:
        """Labels (M,) of a student step, mixed; those of negative bags stay as they are.

        Args:
            labels: (M,) in [0, 1].
            logits: (M, 2) of the student.
            bag_labels: (M,) label in {0, 1} of the bag each instance comes from.
            epoch: from 0.
            run_epochs: epochs of the run, None or -1 for no end.

        Raises:
            UserError: as `ramped`.
        """
        weight = ramped(self.weight, self.ramp, epoch, run_epochs, "method.correction")
        if weight == 0:
            return labels
        scores, in_positive_bag = positive_margin(logits.detach()), bag_labels > 0
        if not in_positive_bag.any():
            return labels
        rate = float(labels.to(scores)[in_positive_bag].mean())
        own = hardened(scores, scores[in_positive_bag], rate).to(labels)
        return torch.where(in_positive_bag, (1 - weight) * labels + weight * own, labels)


def hardened(scores: Tensor, reference: Tensor, positive: float) -> Tensor:
    """Mask (M,) of the scores that reach the quantile above which a share `positive` of the reference scores lies."""
    return scores >= torch.quantile(reference, 1 - positive)
