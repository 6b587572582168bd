"""Decisions on slides against their labels."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from kd_mil.core.checks import whole
from kd_mil.core.errors import UserError
from kd_mil.evaluation.statistics.calibration import expected_calibration_error, reliability_curve
from kd_mil.plot.axes import axes_or_new
from kd_mil.plot.curves import COLOURS, draw_roc, frame_roc
from kd_mil.prediction.folder import Predictions


def roc(
    predictions: Predictions, labels: Mapping[str, str] | None = None, role: str | None = None, ax: Axes | None = None
) -> Axes:
    """ROC curves of the slides of a folder of predictions, with the areas under them.

    Args:
        predictions: the folder.
        labels: names of classes by slide id; None = the column `label` of `slides.csv`.
        role: whose; None = of all roles.
        ax: where; None = new axes.

    Examples:
        >>> roc(Predictions("predictions"), labels={"case_1": "tumour", "case_2": "normal"})  # doctest: +SKIP

    Raises:
        UserError: as `Predictions.scored`, or all slides are of one class.
    """
    ax = axes_or_new(ax, (4.5, 4.2))
    for name in predictions.roles if role is None else [predictions.role(role)]:
        probs, positive = predictions.scored(name, _series(labels))
        if positive.all() or not positive.any():
            raise UserError(f"{predictions.folder}: a ROC curve needs labelled slides of both classes")
        draw_roc(ax, probs, positive, name)
    frame_roc(ax, f"{len(positive)} slides")
    return ax


def reliability(
    predictions: Predictions,
    labels: Mapping[str, str] | None = None,
    role: str | None = None,
    ax: Axes | None = None,
    bins: int = 10,
) -> Axes:
    """How often slides are positive that are said to be so with a probability: a calibrated role lies on the diagonal.

    The area of a point is in proportion to the number of slides; the title has the expected calibration error
    (Naeini et al., AAAI 2015): the mean distance from the diagonal over slides.

    Args:
        predictions: the folder.
        labels: names of classes by slide id; None = the column `label` of `slides.csv`.
        role: whose; None = the one that decides.
        ax: where; None = new axes.
        bins: equal ones of [0, 1].

    Raises:
        UserError: as `Predictions.scored`, or no bins.
    """
    whole("bins", bins, 1)
    ax, role = axes_or_new(ax, (4.5, 4.2)), predictions.role(role)
    probs, positive = predictions.scored(role, _series(labels))
    curve, error = reliability_curve(probs, positive, bins), expected_calibration_error(probs, positive, bins)
    filled = curve.counts > 0
    said, observed, count = curve.predicted[filled], curve.observed[filled], curve.counts[filled]
    ax.plot([0, 1], [0, 1], color="0.8", linewidth=1, zorder=0)
    ax.plot(said, observed, color=COLOURS.get(role))
    ax.scatter(said, observed, s=200 * count / count.max(), color=COLOURS.get(role))
    title = f"{role}: {int(count.sum())} slides, calibration error {error:.3f}"
    labels_of_axes: dict[str, Any] = {"xlabel": "mean probability", "ylabel": "share of positives"}
    ax.set(title=title, xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal", **labels_of_axes)
    return ax


def _series(labels: Mapping[str, str] | None) -> pd.Series | None:
    return None if labels is None else pd.Series(dict(labels), dtype=object)
