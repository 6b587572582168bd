"""Whether probabilities mean what they say: reliability, its errors, and one temperature that mends them.

expected_calibration_error(probs, events)
"""

import math
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar

LEAST_TEMPERATURE, MOST_TEMPERATURE = 0.05, 20.0
"""Bounds of a temperature: where validation is classified without a fault, the best one is 0."""
TINY = float(np.finfo(np.float32).tiny)


class Reliability(NamedTuple):
    """Bins of equal width over [0, 1]; K of them, NaN where a bin is empty."""

    low: np.ndarray
    """(K,) lower edge of each bin."""
    high: np.ndarray
    counts: np.ndarray
    """(K,) int64 predictions in it."""
    predicted: np.ndarray
    """(K,) their mean probability."""
    observed: np.ndarray
    """(K,) share of them in which the event happened."""


def top_class(probs: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probability (N,) of the most probable class of probs (N, C), and whether labels (N,) agree: (N,) bool.

    With these, the reliability of several classes is that of their confidence (Guo et al., ICML 2017, Eq. 3).
    """
    return probs.max(1), probs.argmax(1) == labels


def reliability_curve(probs: np.ndarray, events: np.ndarray, bins: int = 10) -> Reliability:
    """Mean probability and share of events in bins of equal width; 0.2 of ten bins lies in [0.2, 0.3), 1 in the last.

    Args:
        probs: (N,) in [0, 1], of the event.
        events: (N,) bool or in {0, 1}: whether it happened.
        bins: K >= 1.
    """
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.searchsorted(edges, probs, side="right") - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        predicted = np.bincount(place, probs, minlength=bins) / counts
        observed = np.bincount(place, np.asarray(events, dtype=np.float64), minlength=bins) / counts
    return Reliability(edges[:-1], edges[1:], counts, predicted, observed)


def expected_calibration_error(probs: np.ndarray, events: np.ndarray, bins: int = 10) -> float:
    """Mean distance of probability and frequency over the bins, by their counts (Naeini et al., AAAI 2015); in [0, 1].

    NaN without predictions. Arguments as in `reliability_curve`.
    """
    return _mean_gap(reliability_curve(probs, events, bins))


def maximum_calibration_error(probs: np.ndarray, events: np.ndarray, bins: int = 10) -> float:
    """The largest of those distances; NaN without predictions."""
    curve = reliability_curve(probs, events, bins)
    filled = curve.counts > 0
    return float(np.abs(curve.predicted - curve.observed)[filled].max()) if filled.any() else math.nan


def _mean_gap(curve: Reliability) -> float:
    filled, total = curve.counts > 0, int(curve.counts.sum())
    gaps = np.abs(curve.predicted - curve.observed)[filled]
    return float((gaps * curve.counts[filled]).sum() / total) if total else math.nan


def brier_score(probs: np.ndarray, labels: np.ndarray) -> float:
    """Mean squared error of probabilities (Brier 1950); of two classes that of the second, in [0, 1]; NaN of nothing.

    Of more classes the squares are summed over them, as scikit-learn does, and the score lies in [0, 2].

    Args:
        probs: (N, C) that sum to 1.
        labels: (N,) int64 in [0, C).
    """
    if not len(labels):
        return math.nan
    squares = ((probs - np.eye(probs.shape[1])[labels]) ** 2).sum(1).mean()
    return float(squares / 2 if probs.shape[1] == 2 else squares)


def tempered(probs: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities (N, C) whose log-odds are divided by a temperature; above 1 they become less certain.

    The same as a softmax of the logits divided by it (Guo et al., Eq. 9). The order of two classes stays.
    """
    logits = np.log(np.maximum(probs, TINY)) / temperature
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def fit_temperature(probs: np.ndarray, labels: np.ndarray) -> float:
    """The temperature whose probabilities have the least negative log-likelihood (Guo et al., ICML 2017, Sec. 4.2).

    1 where the labels hold fewer than two classes: certainty would be all there is to gain.

    Args:
        probs: (N, C) of validation.
        labels: (N,) int64 in [0, C).

    Returns:
        A number in [`LEAST_TEMPERATURE`, `MOST_TEMPERATURE`].
    """
    if len(np.unique(labels)) < 2:
        return 1.0

    def loss(log_temperature: float) -> float:
        right = tempered(probs, math.exp(log_temperature))[np.arange(len(labels)), labels]
        return float(-np.log(np.maximum(right, TINY)).mean())

    bounds = math.log(LEAST_TEMPERATURE), math.log(MOST_TEMPERATURE)
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    return math.exp(found.x)
