"""What marking whole images scores: the least that a mask has to be better than."""

import torch
from torch import Tensor

from kd_mil.evaluation.metrics import Scores
from kd_mil.evaluation.segmentation import pixel_scores
from kd_mil.evaluation.tables import Columns

CERTAIN = 0.5
"""Image probability from which on a classifier calls an image positive."""


def whole_image_scores(truth: Tensor, known: Tensor, labels: Tensor, probs: Tensor) -> dict[str, Scores]:
    """Scores of pixels, as `pixel_scores`, of three that know nothing of pixels.

    `mark_everything` calls every pixel positive. `perfect_classifier_x_everything` does so in positive images alone, so
    that it has the score of a mask that only tells whose image it is; `classifier_x_everything` in those that a
    classifier calls positive.

    Args:
        truth, known: (N,) positive and known pixels of each image.
        labels: (N,) int64 in {0, 1}.
        probs: (N,) the classifier's, in [0, 1].
    """
    marked = {
        "mark_everything": torch.ones_like(labels, dtype=torch.bool),
        "perfect_classifier_x_everything": labels > 0,
        "classifier_x_everything": probs >= CERTAIN,
    }
    return {name: pixel_scores(counts_of_whole(truth, known, images), labels) for name, images in marked.items()}


def counts_of_whole(truth: Tensor, known: Tensor, marked: Tensor) -> Columns:
    """The counts (N,) of pixels if the images `marked` (N,) bool are called positive throughout, and no other pixel."""
    return {"hit": truth * marked, "predicted": known * marked, "truth": truth, "known": known}
