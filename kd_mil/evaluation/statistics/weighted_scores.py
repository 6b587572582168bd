"""Scores of bags, instances or images as functions of how often each was drawn: what a bootstrap by case needs.

METRICS["auroc"](binary_rows(owners, labels, probs, probs))(counts)  # (R,) from counts (R, N)
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Scores = np.ndarray
"""(R,) values of one metric over resamples, NaN where undefined."""
Weighted = Callable[[np.ndarray], Scores]
"""A metric as a function of how often (R, N) each row was drawn."""


class ClassRows(NamedTuple):
    """One class against the rest."""

    labels: np.ndarray
    """(N,) 0 or 1, float64."""
    ranking: np.ndarray
    """(N,) float64, the higher the more probable."""
    decided: np.ndarray
    """(N,) 0 or 1, float64."""


class PredictedRows(NamedTuple):
    """Predictions of one role for N bags, instances with a label, or images."""

    owners: np.ndarray
    """(N,) position of each row's bag or image in the test set, int64."""
    classes: list[ClassRows]
    """The positive class alone, or all of a role that tells more apart."""
    right: np.ndarray
    """(N,) whether the decision is right, float64."""


def binary_rows(
    owners: np.ndarray, labels: np.ndarray, probs: np.ndarray, ranking: np.ndarray, threshold: float = 0.5
) -> PredictedRows | None:
    """Rows of one class, decided at a threshold; None if a probability is undefined."""
    if not (np.isfinite(probs).all() and np.isfinite(ranking).all()):
        return None
    decided = probs >= threshold
    rows = ClassRows(labels.astype(np.float64), ranking, decided.astype(np.float64))
    return PredictedRows(owners, [rows], (decided == labels).astype(np.float64))


def class_rows(owners: np.ndarray, labels: np.ndarray, probs: np.ndarray) -> PredictedRows | None:
    """Rows of all classes, decided for the most probable one; None if a probability is undefined."""
    if not np.isfinite(probs).all():
        return None
    decided = probs.argmax(1)
    classes = [
        ClassRows((labels == index).astype(np.float64), probs[:, index], (decided == index).astype(np.float64))
        for index in range(probs.shape[1])
    ]
    return PredictedRows(owners, classes, (decided == labels).astype(np.float64))


def over_classes(score: Callable[[ClassRows], Weighted]) -> Callable[[PredictedRows], Weighted]:
    """The mean over the classes of a score of one against the rest; undefined where that of a class is."""

    def mean_score(rows: PredictedRows) -> Weighted:
        each = [score(rows_of_class) for rows_of_class in rows.classes]
        return lambda weights: np.mean([of_class(weights) for of_class in each], axis=0)

    return mean_score


def auroc(rows: ClassRows) -> Weighted:
    """Area under the ROC curve: ties count half."""
    order, groups = tie_groups(rows.ranking)
    positive = rows.labels[order]

    def score(weights: np.ndarray) -> Scores:
        weights = weights[:, order]
        up = np.add.reduceat(weights * positive, groups, axis=1)
        down = np.add.reduceat(weights * (1 - positive), groups, axis=1)
        below = down.cumsum(1) - down / 2
        return ratio((up * below).sum(1), up.sum(1) * down.sum(1))

    return score


def average_precision(rows: ClassRows) -> Weighted:
    """Average precision; undefined without a positive or without a negative label, as AUROC is."""
    order, groups = tie_groups(-rows.ranking)
    positive = rows.labels[order]

    def score(weights: np.ndarray) -> Scores:
        weights = weights[:, order]
        up = np.add.reduceat(weights * positive, groups, axis=1)
        everything = np.add.reduceat(weights, groups, axis=1).cumsum(1)
        precision, negatives = ratio(up.cumsum(1), everything), weights @ (1 - positive)
        return np.where(negatives > 0, ratio(np.nansum(up * precision, axis=1), up.sum(1)), np.nan)

    return score


def accuracy(rows: PredictedRows) -> Weighted:
    """Share of right decisions."""
    return lambda weights: ratio(weights @ rows.right, weights.sum(1))


def class_accuracy(rows: ClassRows) -> Weighted:
    """Share of the rows that are decided rightly for this class or against it."""
    right = (rows.decided == rows.labels).astype(np.float64)
    return lambda weights: ratio(weights @ right, weights.sum(1))


def f1(rows: ClassRows) -> Weighted:
    """F1; undefined without a positive label, as in `evaluation.metrics`."""
    hit, either = rows.decided * rows.labels, rows.decided + rows.labels
    return lambda weights: np.where(weights @ rows.labels > 0, ratio(2 * weights @ hit, weights @ either), np.nan)


def iou(rows: ClassRows) -> Weighted:
    """Intersection over union of the decided and the positive ones; undefined without a positive label."""
    hit, union = rows.decided * rows.labels, np.maximum(rows.decided, rows.labels)
    return lambda weights: np.where(weights @ rows.labels > 0, ratio(weights @ hit, weights @ union), np.nan)


def sensitivity(rows: ClassRows) -> Weighted:
    """Share of the positive ones that are decided so; undefined without any."""
    hit = rows.decided * rows.labels
    return lambda weights: ratio(weights @ hit, weights @ rows.labels)


def specificity(rows: ClassRows) -> Weighted:
    """Share of the negative ones that are decided so; undefined without any."""
    rejected, negative = (1 - rows.decided) * (1 - rows.labels), 1 - rows.labels
    return lambda weights: ratio(weights @ rejected, weights @ negative)


def precision(rows: ClassRows) -> Weighted:
    """Share of the decided ones that are positive; undefined without any."""
    hit = rows.decided * rows.labels
    return lambda weights: ratio(weights @ hit, weights @ rows.decided)


def negative_predictive_value(rows: ClassRows) -> Weighted:
    """Share of the rejected ones that are negative; undefined without any."""
    rejected, none = (1 - rows.decided) * (1 - rows.labels), 1 - rows.decided
    return lambda weights: ratio(weights @ rejected, weights @ none)


def balanced_accuracy(rows: ClassRows) -> Weighted:
    """Mean of sensitivity and specificity."""
    found, refused = sensitivity(rows), specificity(rows)
    return lambda weights: (found(weights) + refused(weights)) / 2


def mean(values: np.ndarray) -> Weighted:
    """Weighted mean of the values (N,) that are defined."""
    known = np.isfinite(values)
    return lambda weights: ratio(weights[:, known] @ values[known], weights[:, known].sum(1))


def brier(rows: PredictedRows) -> Weighted:
    """Mean squared error of probabilities, as `calibration.brier_score`; the rankings are the probabilities."""
    squares = np.sum([(row.ranking - row.labels) ** 2 for row in rows.classes], axis=0)
    return mean(squares)


def loss(rows: PredictedRows) -> Weighted:
    """Mean negative log-likelihood; the rankings are the probabilities."""
    right = [np.where(row.labels > 0, row.ranking, 0.0) for row in rows.classes]
    if len(rows.classes) == 1:
        right.append(np.where(rows.classes[0].labels > 0, 0.0, 1 - rows.classes[0].ranking))
    return mean(-np.log(np.maximum(np.sum(right, axis=0), np.finfo(np.float32).tiny)))


METRICS: dict[str, Callable[[PredictedRows], Weighted]] = {
    "auroc": over_classes(auroc),
    "ap": over_classes(average_precision),
    "accuracy": accuracy,
    "f1": over_classes(f1),
}
"""By name; of several classes the mean over them, but for accuracy."""
OF_PROBABILITIES: dict[str, Callable[[PredictedRows], Weighted]] = {"brier": brier, "loss": loss}
"""Scores of rows that rank by their probabilities."""
DECISIONS: dict[str, Callable[[PredictedRows], Weighted]] = {
    "sensitivity": over_classes(sensitivity),
    "specificity": over_classes(specificity),
    "precision": over_classes(precision),
    "npv": over_classes(negative_predictive_value),
    "balanced_accuracy": over_classes(balanced_accuracy),
}
"""Further scores of decisions, each of one class against the rest, over several classes their mean."""
OF_CLASSES: dict[str, Callable[[ClassRows], Weighted]] = {
    "auroc": auroc,
    "ap": average_precision,
    "sensitivity": sensitivity,
    "specificity": specificity,
    "precision": precision,
}
"""Scores of one class against the rest, which are there though another class is absent."""
OF_IMAGES: dict[str, Callable[[PredictedRows], Weighted]] = {
    "accuracy_ovr": over_classes(class_accuracy),
    "precision": over_classes(precision),
    "recall": over_classes(sensitivity),
}
"""What `classification.confusion_scores` has beyond `METRICS`."""


def tie_groups(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ascending order (N,), and where each run of equal scores starts in it."""
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    return order, np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])


def ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Quotient; NaN where the denominator is 0."""
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=np.asarray(below) != 0)
