"""The figures of a report."""

import statistics
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kd_mil.reporting.comparison import Entry
from kd_mil.reporting.runs import Point, number
from kd_mil.reporting.spread import defined_mean

COLOURS = {"teacher": "tab:blue", "student": "tab:red", "model": "tab:green"}
LONGEST_LABEL = 80
LINE, LINES = 60, 3
"""Characters in a line of the name of a row, and lines of it."""


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
    bags (or images) on validation, and as a diamond that of the test at the chosen point alone. Circles are runs.
    """
    level = level_of(points)
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    curves = curves_of(points, x)
    for curve in curves.values():
        name = "" if len(curves) == 1 else f"{label_of(curve[0], x)} "
        monitor = curve[0].runs[0].record.get("monitor")
        if monitor:
            draw(left, curve, x, monitor, f"{name}{monitor}", "0.3" if len(curves) == 1 else None)
        for role in curve[0].runs[0].roles:
            label = f"{name}{literal(role)}, validation {level}s"
            draw(right, curve, x, f"val/{role}/{level}_auroc", label, COLOURS.get(role))
            for point in curve:
                if point.name in chosen.values():
                    mark(right, point, x, role, level)
    for axes, title in ((left, "what chooses"), (right, f"{level} AUROC")):
        axes.set(xlabel=x, title=title)
        for point in points:
            position = number(point.settings.get(x, ""))
            if point.name in chosen.values() and position is not None:
                axes.axvline(position, color="0.8", zorder=0)
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize=8)
    return figure


def level_of(points: Sequence[Point]) -> str:
    """What the runs classify: `bag`, or `image` where no run has a result of bags."""
    metrics = {key for point in points for run in point.runs for key in run.metrics}
    return "bag" if any("/bag_" in key for key in metrics) else "image"


def curves_of(points: Sequence[Point], x: str) -> dict[tuple, list[Point]]:
    """Points that differ in `x` alone, in its order."""
    curves: dict[tuple, list[Point]] = {}
    for point in points:
        if number(point.settings.get(x, "")) is not None:
            rest = tuple(pair for pair in point.settings.items() if pair[0] != x)
            curves.setdefault((point.experiment, rest), []).append(point)
    return {key: sorted(curve, key=lambda point: float(point.settings[x])) for key, curve in curves.items()}


def label_of(point: Point, x: str) -> str:
    """Name of a point's curve."""
    name = " ".join([point.experiment, *(f"{key}={value}" for key, value in point.settings.items() if key != x)])
    return literal(name)


def literal(text: str) -> str:
    """Text that Matplotlib draws as it stands (two dollar signs make a formula), a very long one without its middle."""
    shown = text if len(text) <= LONGEST_LABEL else f"{text[:40]} … {text[-37:]}"
    return shown.replace("$", r"\$")


def broken(text: str) -> str:
    """The name of a row in up to `LINES` lines, a longer one without some of them; drawn as it stands."""
    lines = textwrap.wrap(text, LINE, break_on_hyphens=False)
    if len(lines) > LINES:
        lines = [*lines[: LINES - 2], f"{lines[LINES - 2][: LINE - 2]} …", lines[-1]]
    return "\n".join(lines).replace("$", r"\$")


def row_height(names: Sequence[str]) -> float:
    """Inches of a row that any of these names fits in."""
    return max(0.32, 0.06 + 0.14 * max((name.count("\n") + 1 for name in names), default=1))


def draw(axes: Axes, points: Sequence[Point], x: str, key: str, label: str, colour: Any) -> None:
    """Mean over runs as a line, single runs as circles."""
    positions = [float(point.settings[x]) for point in points]
    means = [defined_mean(point.values(key)) for point in points]
    if all(mean is None for mean in means):
        return
    known = [float("nan") if mean is None else mean for mean in means]
    [line] = axes.plot(positions, known, "-", color=colour, label=label)
    for position, point in zip(positions, points, strict=True):
        values = [value for value in point.values(key) if value is not None]
        at, circle = [position] * len(values), line.get_color()
        axes.plot(at, values, "o", color=circle, markersize=4, alpha=0.5, fillstyle="none")


def mark(axes: Axes, point: Point, x: str, role: str, level: str) -> None:
    """The test result at the chosen point."""
    values = [value for value in point.values(f"test/{role}/{level}_auroc") if value is not None]
    if values:
        mean, colour = statistics.fmean(values), COLOURS.get(role)
        label = f"{literal(role)}, test {level}s at the chosen point: {mean:.3f}"
        axes.plot([float(point.settings[x])], [mean], "D", color=colour, markersize=9, markeredgecolor="k", label=label)


def comparison_figure(entries: Sequence[Entry], metric: str, chosen: Mapping[str, str]) -> Figure:
    """Test results of all points in one metric: single runs, mean, and 95 % interval over test cases."""
    drawn = [entry for entry in entries if entry.metric == metric][::-1]
    names = [broken(f"{entry.point} {entry.role}{' *' if entry.point in chosen.values() else ''}") for entry in drawn]
    figure = Figure(figsize=(9, 1.2 + row_height(names) * len(drawn)), layout="constrained")
    axes = figure.subplots()
    for row, entry in enumerate(drawn):
        colour = COLOURS.get(entry.role, "0.3")
        if entry.low is not None and entry.high is not None:
            axes.plot([entry.low, entry.high], [row, row], "-", color=colour, linewidth=5, alpha=0.25)
        known = [value for value in entry.values if value is not None]
        axes.plot(known, [row] * len(known), "o", color=colour, markersize=4, alpha=0.6, fillstyle="none")
        axes.plot([entry.mean or 0], [row], "|", color=colour, markersize=14, markeredgewidth=2)
    axes.set_yticks(range(len(drawn)), names, fontsize=8)
    axes.set(xlabel=f"{metric}, test", ylim=(-0.7, len(drawn) - 0.3))
    axes.grid(axis="x", alpha=0.3)
    return figure
