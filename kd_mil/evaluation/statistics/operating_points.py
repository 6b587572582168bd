"""Probabilities from which on a bag is called positive, chosen on the labels of validation bags.

operating_points(probs, labels)["sensitivity_95"]
"""

import math

import numpy as np
from sklearn.metrics import roc_curve

TARGETS = (0.9, 0.95, 0.99)
"""Sensitivities and specificities that a point can be asked for."""
POINTS = (
    "youden",
    "f1",
    *(f"{what}_{100 * target:.0f}" for what in ("sensitivity", "specificity") for target in TARGETS),
)
"""Names of the points: most sensitivity + specificity, highest F1, at least that sensitivity or specificity."""


def operating_points(probs: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """All of `POINTS` by name, each halfway between two neighbouring probabilities; 0.5 with one class alone.

    `youden` is 0.5 as well where no threshold is better than chance. Of several thresholds with the same sensitivity
    `sensitivity_95` is the highest, and `specificity_95` the lowest of those with the same specificity, so that the
    other of the two is as good as it can be.

    Args:
        probs: (B,) probability of the positive class.
        labels: (B,) in {0, 1}.
    """
    positive = np.asarray(labels) > 0
    if positive.all() or not positive.any():
        return dict.fromkeys(POINTS, 0.5)
    false, true, thresholds = roc_curve(positive, probs, drop_intermediate=False)
    ups, downs = positive.sum(), (~positive).sum()
    f1 = 2 * true * ups / (true * ups + false * downs + ups)
    gain = true - false
    chosen = {"youden": int(gain.argmax()), "f1": int(f1.argmax())}
    for target in TARGETS:
        chosen[f"sensitivity_{100 * target:.0f}"] = int(np.flatnonzero(true >= target - 1e-9)[0])
        chosen[f"specificity_{100 * target:.0f}"] = int(np.flatnonzero(1 - false >= target - 1e-9)[-1])
    points = {name: _halfway(np.asarray(probs), thresholds, index) for name, index in chosen.items()}
    return points if gain.max() > 0 else points | {"youden": 0.5}


def _halfway(probs: np.ndarray, thresholds: np.ndarray, index: int) -> float:
    """Halfway from a threshold to the next lower probability; above all of them where the curve begins."""
    if index == 0:
        return (float(probs.max()) + 1) / 2 if probs.max() < 1 else math.nextafter(1, 2)
    best = float(thresholds[index])
    below = probs[probs < best]
    return (best + float(below.max())) / 2 if len(below) else best
