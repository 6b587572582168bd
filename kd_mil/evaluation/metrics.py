"""Exact scores of probabilities against labels; NaN where a score is undefined."""

import math
import warnings

import torch
from torch import Tensor

from kd_mil.evaluation.ranking import areas_of

Scores = dict[str, float]
BAG_METRICS = ("loss", "auroc", "ap", "accuracy", "f1", "accuracy_tuned", "f1_tuned")
"""What `bag_scores` gives, the last two with two classes only."""


def binary_scores(
    probs: Tensor, labels: Tensor, threshold: float = 0.5, ranking: Tensor | None = None, of: str = ""
) -> Scores:
    """AUROC, average precision, accuracy and F1 of binary decisions.

    Args:
        probs: (N,) probability of the positive class; positive is decided at `probs >= threshold`.
        labels: (N,) int64 in {0, 1}.
        ranking: (N,) scores that rank better than `probs` where those are clipped; default `probs`.
        of: what is scored, named in warnings.

    Returns:
        `auroc`, `ap`, `accuracy`, `f1`; NaN with a warning where undefined (a class without examples).
    """
    ranking = probs if ranking is None else ranking
    positives, total = int((labels == 1).sum()), len(labels)
    scores = dict.fromkeys(("auroc", "ap"), math.nan)
    if positives in (0, total):
        what = f"{of or 'a score'}: only one class among {total} labels"
        warnings.warn(f"{what}, AUROC and average precision are undefined (NaN)", stacklevel=2)
    else:
        scores["auroc"], scores["ap"] = (float(area) for area in areas_of(ranking, labels > 0))
    return scores | decision_scores((probs >= threshold).long(), labels)


def decision_scores(decided: Tensor, labels: Tensor, suffix: str = "") -> Scores:
    """`accuracy` and `f1` of decisions (N,) in {0, 1}, keys with a suffix; NaN where undefined."""
    accuracy = float((decided == labels).double().mean()) if len(labels) else math.nan
    return {f"accuracy{suffix}": accuracy, f"f1{suffix}": _f1(decided, labels)}


def multiclass_scores(probs: Tensor, labels: Tensor, of: str = "") -> Scores:
    """Macro one-vs-rest AUROC, average precision and F1, and accuracy of the arg-max, for probs (N, C)."""
    decided = probs.argmax(1)
    per_class = [binary_scores(probs[:, c], (labels == c).long(), of=f"{of}, class {c}") for c in range(probs.shape[1])]
    scores = {name: _mean([item[name] for item in per_class]) for name in ("auroc", "ap")}
    scores["accuracy"] = float((decided == labels).double().mean()) if len(labels) else math.nan
    scores["f1"] = _mean([_f1((decided == c).long(), (labels == c).long()) for c in range(probs.shape[1])])
    return scores


def bag_scores(probs: Tensor, labels: Tensor, threshold: float, of: str = "") -> Scores:
    """Scores of bag probabilities (B, C), keys prefixed `bag_`.

    With two classes, accuracy and F1 come at 0.5 and, suffixed `_tuned`, at `threshold` (chosen on validation).
    `bag_loss` is the mean negative log-likelihood.
    """
    scores = {"loss": negative_log_likelihood(probs, labels)}
    if probs.shape[1] == 2:
        scores |= binary_scores(probs[:, 1], labels, of=of)
        scores |= decision_scores((probs[:, 1] >= threshold).long(), labels, "_tuned")
    else:
        scores |= multiclass_scores(probs, labels, of=of)
    return {f"bag_{name}": value for name, value in scores.items()}


def negative_log_likelihood(probs: Tensor, labels: Tensor) -> float:
    """Mean negative log-likelihood of labels (B,) under probs (B, C), finite at a probability of 0."""
    likelihood = probs.gather(1, labels[:, None]).clamp_min(torch.finfo(torch.float32).tiny)
    return float(-likelihood.log().mean())


def instance_scores(probs: Tensor, ranking: Tensor, labels: Tensor, threshold: float = 0.5, of: str = "") -> Scores:
    """Scores of instances pooled over all bags, keys prefixed `instance_`; unknown labels (-1) are left out.

    Accuracy and F1 come at 0.5 and, suffixed `_tuned`, at `threshold` (chosen on the labels of validation bags).
    """
    known = labels >= 0
    probs, positive = probs[known], (labels[known] > 0).long()
    scores = binary_scores(probs, positive, ranking=ranking[known], of=of)
    scores |= decision_scores((probs >= threshold).long(), positive, "_tuned")
    return {f"instance_{name}": value for name, value in scores.items()}


def instance_class_scores(probs: Tensor, labels: Tensor, of: str = "") -> Scores:
    """Macro one-vs-rest scores of the classes of instances, probs (N, C), keys prefixed `instance_class_`."""
    known = labels >= 0
    scores = multiclass_scores(probs[known], labels[known], of=of)
    return {f"instance_class_{name}": value for name, value in scores.items()}


def _f1(decided: Tensor, labels: Tensor) -> float:
    """2 TP / (2 TP + FP + FN); NaN without a positive label."""
    positives = int(labels.sum())
    return 2 * int((decided * labels).sum()) / (int(decided.sum()) + positives) if positives else math.nan


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
