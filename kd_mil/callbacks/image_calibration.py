"""Whether probabilities of classifiers of images mean what they say, and what a temperature from validation mends."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from kd_mil.evaluation.statistics.calibration import (
    brier_score,
    expected_calibration_error,
    fit_temperature,
    reliability_curve,
    tempered,
    top_class,
)

Rows = Mapping[str, Tensor]
"""`label` (N,) and `{role}/probs` (N, C)."""


def calibration(val: Rows, test: Rows, role: str) -> dict[str, float]:
    """`ece` and `brier` on the test images, the `temperature` of validation, and `ece_tempered` with it.

    The expected calibration error is that of the most probable class, over ten bins of equal width.

    Args:
        val, test: predictions.
        role: whose.
    """
    temperature = fit_temperature(*arrays(val, role))
    probs, labels = arrays(test, role)
    return {
        "ece": expected_calibration_error(*top_class(probs, labels)),
        "brier": brier_score(probs, labels),
        "temperature": temperature,
        "ece_tempered": expected_calibration_error(*top_class(tempered(probs, temperature), labels)),
    }


def arrays(rows: Rows, role: str) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (N, C) of a role, and labels (N,)."""
    return rows[f"{role}/probs"].numpy(), rows["label"].numpy()


def reliability_figure(test: Rows, roles: Sequence[str]) -> Figure:
    """How often the most probable class is right, against its probability; the area of a dot is its share of images."""
    figure = Figure(figsize=(4.0, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    for number, role in enumerate(roles):
        confidence, right = top_class(*arrays(test, role))
        curve = reliability_curve(confidence, right)
        filled = curve.counts > 0
        error = expected_calibration_error(confidence, right)
        axes.plot(curve.predicted[filled], curve.observed[filled], color=f"C{number}", label=f"{role}, ECE {error:.3f}")
        sizes = 300 * curve.counts[filled] / curve.counts.sum()
        axes.scatter(curve.predicted[filled], curve.observed[filled], s=sizes, color=f"C{number}", alpha=0.6)
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="probability of the decision", ylabel="share of right decisions")
    axes.legend(frameon=False, fontsize=8)
    return figure
