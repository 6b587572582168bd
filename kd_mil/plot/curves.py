"""Curves of scores against labels, drawn on given axes; runs and predictions draw theirs with these."""

import numpy as np
from matplotlib.axes import Axes
from sklearn.metrics import auc, roc_curve

COLOURS = {"teacher": "tab:blue", "student": "tab:red", "model": "tab:green"}
DASHES = {"student": "--"}


def draw_roc(axes: Axes, scores: np.ndarray, positive: np.ndarray, role: str) -> None:
    """Add a ROC curve with its area to the axes; nothing where a class is absent, for it is undefined.

    Args:
        axes: where.
        scores: (N,), higher = more positive.
        positive: (N,) bool.
        role: names the curve and its colour.
    """
    if positive.any() and not positive.all():
        false_rate, true_rate, _ = roc_curve(positive, scores)
        area, dashes = auc(false_rate, true_rate), DASHES.get(role, "-")
        axes.plot(false_rate, true_rate, color=COLOURS.get(role), linestyle=dashes, label=f"{role} {area:.3f}")


def frame_roc(axes: Axes, title: str) -> None:
    """What stands around the curves."""
    axes.plot([0, 1], [0, 1], color="0.8", linewidth=1, zorder=0)
    axes.set(title=title, xlabel="false positive rate", ylabel="true positive rate", aspect="equal")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower right", frameon=False)
