"""Accuracy against cost as a figure and as a table."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from kd_mil.reporting.frontier import COSTS, FrontierPoint

STYLES = {"teacher": ("tab:blue", "*"), "baseline": ("0.45", "s"), "kd": ("tab:orange", "o"), "kd_ad": ("tab:red", "D")}
COLOURS = [f"tab:{name}" for name in ("orange", "red", "green", "purple", "brown", "pink", "olive", "cyan")]
"""Of kinds with several settings: neither the teacher's nor the baseline's."""


def frontier_figure(points: list[FrontierPoint], metric: str, cost: str, percent: float) -> Figure:
    """Score with intervals against cost on a logarithmic axis, a line for each kind (the paper's Fig. 3)."""
    figure = Figure(figsize=(6.4, 4.8), layout="constrained")
    axes = figure.subplots()  # an interval need not hold the mean: that of a collapsed student misses it by rounding
    names = {point.name: point.kind for point in points}
    ranked = sorted(names, key=lambda name: list(STYLES).index(names[name]) if names[name] in STYLES else 99)
    for number, name in enumerate(ranked):
        line, kind = sorted((one for one in points if one.name == name), key=lambda point: point.cost), names[name]
        own = COLOURS[(number - 2) % len(COLOURS)]
        colour, marker = STYLES.get(kind, (own, "^"))
        colour = own if list(names.values()).count(kind) > 1 else colour
        apart = 1.03 ** (number - len(names) / 2)  # intervals of equal cost side by side
        positions, size = [point.cost * apart for point in line], 10 if kind == "teacher" else 6
        scores = [100 * point.score for point in line]
        axes.plot(positions, scores, color=colour, marker=marker, markersize=size, label=name)
        ends = [100 * end for point in line for end in (point.low, point.high)]
        axes.plot(np.repeat(positions, 2), ends, "_", color=colour)
        axes.vlines(positions, [100 * p.low for p in line], [100 * p.high for p in line], color=colour)
    teachers = [point.score for point in points if point.kind == "teacher"]
    if teachers:
        level = 100 * max(teachers) * (1 - percent / 100)
        axes.axhline(level, color="tab:blue", linestyle=":", linewidth=1, label=f"teacher less {percent:g} %")
    for point in {point.downsample: point for point in points}.values():
        side, bottom = f"1/{point.downsample:g}", (point.cost, 0.01)
        axes.annotate(side, bottom, xycoords=("data", "axes fraction"), ha="center", fontsize=8)
    axes.set(xscale="log", xlabel=COSTS[cost], ylabel=f"{metric}, % (95 % interval)")
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    return figure


def print_points(
    points: list[FrontierPoint], cheapest: FrontierPoint | None, percent: float, metric: str, cost: str, out: Path
) -> None:
    """The table and the answer."""
    rows = [cells_of(point, cost, metric) for point in points]
    shown = [name for name in rows[0] if any(row[name] for row in rows)]
    table = Table(*(Column(name, no_wrap=name != "network", overflow="fold", min_width=8) for name in shown))
    for row in rows:
        table.add_row(*(row[name] for name in shown))
    console = Console(width=max(Console().width, 15 * len(shown)))
    console.print(table)
    if cheapest is None:
        console.print(f"no network is within {percent:g} % of the teacher on validation")
    else:
        console.print(
            f"cheapest network within {percent:g} % of the teacher on validation: {cheapest.name} at "
            f"1/{cheapest.downsample:g}, {cheapest.cost:.4g} {cost}",
            markup=False,
        )
    console.print(f"figure in {out / 'frontier.png'}", soft_wrap=True, highlight=False, markup=False)


def cells_of(point: FrontierPoint, cost: str, metric: str) -> dict[str, str]:
    """The cells of a point by the name of their column; empty where nothing is known."""
    return {
        "network": escape(point.name),
        "side /\noriginal": f"1/{point.downsample:g}",
        "runs": str(point.runs),
        cost: f"{point.cost:.4g}",
        f"{metric}, %": f"{100 * point.score:.2f}",
        "95 %\ninterval": f"{100 * point.low:.2f} to {100 * point.high:.2f}",
        "over the\nruns": f"{100 * point.least:.2f} to {100 * point.most:.2f}",
        "% of teacher\n(pairs)": "" if point.of_teacher is None else f"{100 * point.of_teacher:.2f} ({point.pairs})",
        "on\nvalidation": "" if point.val_of_teacher is None else f"{100 * point.val_of_teacher:.2f}",
        "less teacher\n95 %": between(point.less_low, point.less_high),
        "less baseline\n95 %": between(point.gain_low, point.gain_high),
    }


def between(low: float | None, high: float | None) -> str:
    """An interval of differences in points of percent; empty where there is none."""
    return "" if low is None or high is None else f"{100 * low:+.2f} to {100 * high:+.2f}"
