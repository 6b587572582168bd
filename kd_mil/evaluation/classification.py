"""Scores of image classifiers, from class probabilities and confusion counts."""

import math

import torch
from torch import Tensor

from kd_mil.evaluation.metrics import Scores, binary_scores, negative_log_likelihood

IMAGE_METRICS = ("loss", "auroc", "ap", "accuracy", "accuracy_ovr", "f1", "precision", "recall")
"""What `image_scores` gives."""


def confusion_matrix(labels: Tensor, decided: Tensor, num_classes: int) -> Tensor:
    """Counts (C, C) int64: row = true class, column = decision."""
    cells = torch.bincount(labels * num_classes + decided, minlength=num_classes**2)
    return cells.view(num_classes, num_classes)


def confusion_scores(confusion: Tensor) -> dict[str, Tensor]:
    """Scores of confusion counts (..., C, C), each (...) float64.

    `accuracy` is the share of right decisions. The others are one-vs-rest scores averaged over the classes, as in the
    paper (Sec. 4.4): `accuracy_ovr`, `f1`, `precision`, `recall`. NaN where a class's own is undefined: precision of a
    class that is never decided, recall and F1 of one that does not occur.
    """
    counts = confusion.double()
    total, right = counts.sum((-2, -1)), counts.diagonal(dim1=-2, dim2=-1)
    decided, actual = counts.sum(-2), counts.sum(-1)
    wrong = decided + actual - 2 * right
    return {
        "accuracy": right.sum(-1) / total,
        "accuracy_ovr": 1 - (wrong / total[..., None]).mean(-1),
        "f1": torch.where(actual > 0, 2 * right / (decided + actual), math.nan).mean(-1),
        "precision": (right / decided).mean(-1),
        "recall": (right / actual).mean(-1),
    }


def image_scores(probs: Tensor, labels: Tensor, of: str = "") -> Scores:
    """Scores of class probabilities (N, C) against labels (N,), keys prefixed `image_`.

    `loss` is the mean negative log-likelihood; `auroc` and `ap` are one-vs-rest, averaged over the classes; the rest is
    that of `confusion_scores` for the most probable class. Undefined scores are NaN, with a warning.
    """
    scores = {"loss": negative_log_likelihood(probs, labels)}
    classes = range(probs.shape[1])
    by_class = [binary_scores(probs[:, c], (labels == c).long(), of=f"{of}, class {c}") for c in classes]
    scores |= {name: math.fsum(item[name] for item in by_class) / len(by_class) for name in ("auroc", "ap")}
    confusion = confusion_matrix(labels, probs.argmax(1), probs.shape[1])
    scores |= {name: float(value) for name, value in confusion_scores(confusion).items()}
    return {f"image_{name}": value for name, value in scores.items()}
