"""Scores of image classifiers from confusion counts, and the table of predictions they are counted in."""

import math

import torch
from torch import Tensor

from kd_mil.distributed import gather_rows
from kd_mil.evaluation.metrics import Scores, binary_scores

Columns = dict[str, Tensor]
IMAGE_METRICS = ("loss", "auroc", "ap", "accuracy", "accuracy_ovr", "f1", "precision", "recall")
"""What `image_scores` gives."""


class ImageRows:
    """Predictions of one rank, batch by batch, until `collect` gathers those of all."""

    def __init__(self) -> None:
        self._parts: list[Columns] = []

    def add(self, indices: Tensor, labels: Tensor, probs: dict[str, Tensor]) -> None:
        """Keep class probabilities (B, C) of each role for B images."""
        rows = {"image": indices, "label": labels} | {f"{role}/probs": value for role, value in probs.items()}
        self._parts.append({name: column.detach() for name, column in rows.items()})

    def collect(self) -> Columns:
        """Gather all rows, each once, ordered by image, and forget them: `image`, `label`, `{role}/probs` (N, C)."""
        rows = gather_rows({name: torch.cat([part[name] for part in self._parts]) for name in self._parts[0]})
        self._parts = []
        order = rows["image"].argsort()
        return {name: column[order] for name, column in rows.items()}


def confusion_matrix(labels: Tensor, decided: Tensor, num_classes: int) -> Tensor:
    """Counts (C, C) int64: row = true class, column = decision."""
    cells = torch.bincount(labels * num_classes + decided, minlength=num_classes**2)
    return cells.view(num_classes, num_classes)


def confusion_scores(confusion: Tensor) -> dict[str, Tensor]:
    """Scores of confusion counts (..., C, C), each (...) float64.

    `accuracy` is the share of right decisions. The others are one-vs-rest scores averaged over the classes, as in the
    paper (Sec. 4.4): `accuracy_ovr`, `f1`, `precision`, `recall`. NaN where a class's own is undefined: precision of a
    class that is never decided, recall of one that does not occur.
    """
    counts = confusion.double()
    total, right = counts.sum((-2, -1)), counts.diagonal(dim1=-2, dim2=-1)
    decided, actual = counts.sum(-2), counts.sum(-1)
    wrong = decided + actual - 2 * right
    return {
        "accuracy": right.sum(-1) / total,
        "accuracy_ovr": 1 - (wrong / total[..., None]).mean(-1),
        "f1": (2 * right / (decided + actual)).mean(-1),
        "precision": (right / decided).mean(-1),
        "recall": (right / actual).mean(-1),
    }


def image_scores(probs: Tensor, labels: Tensor, of: str = "") -> Scores:
    """Scores of class probabilities (N, C) against labels (N,), keys prefixed `image_`.

    `loss` is the mean negative log-likelihood; `auroc` and `ap` are one-vs-rest, averaged over the classes; the rest is
    that of `confusion_scores` for the most probable class. Undefined scores are NaN, with a warning.
    """
    likelihood = probs.gather(1, labels[:, None]).clamp_min(torch.finfo(torch.float32).tiny)
    scores = {"loss": float(-likelihood.log().mean())}
    classes = range(probs.shape[1])
    ranked = [binary_scores(probs[:, c], (labels == c).long(), of=f"{of}, class {c}") for c in classes]
    scores |= {name: math.fsum(one[name] for one in ranked) / len(ranked) for name in ("auroc", "ap")}
    confusion = confusion_matrix(labels, probs.argmax(1), probs.shape[1])
    scores |= {name: float(value) for name, value in confusion_scores(confusion).items()}
    return {f"image_{name}": value for name, value in scores.items()}
