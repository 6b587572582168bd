"""The figures of a report."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kd_mil.reporting.comparison import Entry
from kd_mil.reporting.runs import Point, defined_mean, number

COLOURS = {"teacher": "tab:blue", "student": "tab:red", "model": "tab:green"}


def swept_number(points: Sequence[Point], wanted: str | None = None) -> str | None:
    """The setting to draw against: the wanted one, or the numeric one with the most values; None if there is none."""
    values: dict[str, set[float]] = {}
    for point in points:
        for key, text in point.settings.items():
            if (value := number(text)) is not None:
                values.setdefault(key, set()).add(value)
    if wanted is not None:
        return wanted if wanted in values else None
    counts = {key: len(found) for key, found in values.items() if len(found) > 1}
    return max(counts, key=lambda key: counts[key]) if counts else None


def sweep_figure(points: Sequence[Point], x: str, chosen: Mapping[str, str]) -> Figure:
    """What validation says along the swept setting, and the test result of the one point it chooses.

    Left, the metric that selected the checkpoints: its best mean chooses the point. Right, areas under the ROC curve of
    validation, and as a diamond that of the test at the chosen point alone. Circles are single runs.
    """
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    curves = curves_of(points, x)
    for own in curves.values():
        name = "" if len(curves) == 1 else f"{label_of(own[0], x)} "
        monitor = own[0].runs[0].record.get("monitor")
        if monitor:
            draw(left, own, x, monitor, f"{name}{monitor}", "0.3" if len(curves) == 1 else None)
        for role in own[0].runs[0].roles:
            draw(right, own, x, f"val/{role}/bag_auroc", f"{name}{role}, validation bags", COLOURS.get(role))
            for point in own:
                if chosen.get(point.experiment) == point.name:
                    mark(right, point, x, role)
    for axes, title in ((left, "what chooses"), (right, "bag AUROC")):
        axes.set(xlabel=x, title=title)
        for point in points:
            if chosen.get(point.experiment) == point.name and x in point.settings:
                axes.axvline(float(point.settings[x]), color="0.8", zorder=0)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize=8)
    return figure


def curves_of(points: Sequence[Point], x: str) -> dict[tuple, list[Point]]:
    """Points that differ in `x` alone, in its order."""
    curves: dict[tuple, list[Point]] = {}
    for point in points:
        if number(point.settings.get(x, "")) is not None:
            rest = tuple(pair for pair in point.settings.items() if pair[0] != x)
            curves.setdefault((point.experiment, rest), []).append(point)
    return {key: sorted(own, key=lambda point: float(point.settings[x])) for key, own in curves.items()}


def label_of(point: Point, x: str) -> str:
    """Name of a point's curve."""
    return " ".join([point.experiment, *(f"{key}={value}" for key, value in point.settings.items() if key != x)])


def draw(axes: Axes, points: Sequence[Point], x: str, key: str, label: str, colour: Any) -> None:
    """Mean over runs as a line, single runs as circles."""
    places = [float(point.settings[x]) for point in points]
    means = [defined_mean(point.values(key)) for point in points]
    if all(mean is None for mean in means):
        return
    known = [float("nan") if mean is None else mean for mean in means]
    [line] = axes.plot(places, known, "-", color=colour, label=label)
    for place, point in zip(places, points, strict=True):
        values = [value for value in point.values(key) if value is not None]
        axes.plot([place] * len(values), values, "o", color=line.get_color(), markersize=4, alpha=0.5, fillstyle="none")


def mark(axes: Axes, point: Point, x: str, role: str) -> None:
    """The test result at the chosen point."""
    values = [value for value in point.values(f"test/{role}/bag_auroc") if value is not None]
    if values:
        mean, colour = statistics.fmean(values), COLOURS.get(role)
        label = f"{role}, test bags at the chosen point: {mean:.3f}"
        axes.plot([float(point.settings[x])], [mean], "D", color=colour, markersize=9, markeredgecolor="k", label=label)


def comparison_figure(entries: Sequence[Entry], metric: str, chosen: Mapping[str, str]) -> Figure:
    """Test results of all points in one metric: single runs, mean, and 95 % interval over test bags."""
    own = [one for one in entries if one.metric == metric][::-1]
    figure = Figure(figsize=(9, 1.2 + 0.32 * len(own)), layout="constrained")
    axes = figure.subplots()
    for place, one in enumerate(own):
        colour = COLOURS.get(one.role, "0.3")
        if one.low is not None and one.high is not None:
            axes.plot([one.low, one.high], [place, place], "-", color=colour, linewidth=5, alpha=0.25)
        known = [value for value in one.values if value is not None]
        axes.plot(known, [place] * len(known), "o", color=colour, markersize=4, alpha=0.6, fillstyle="none")
        axes.plot([one.mean or 0], [place], "|", color=colour, markersize=14, markeredgewidth=2)
    names = [f"{one.point}  {one.role}{' *' if one.point in chosen.values() else ''}" for one in own]
    axes.set_yticks(range(len(own)), names, fontsize=8)
    axes.set(xlabel=f"{metric}, test", ylim=(-0.7, len(own) - 0.3))
    axes.grid(axis="x", alpha=0.3)
    return figure
