"""Accuracy against cost: the points of resolution distillation's runs, and the cheapest student that is good enough."""

import glob
import statistics
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from kd_mil.core.errors import UserError
from kd_mil.reporting.records import read_json
from kd_mil.reporting.runs import Run, points_of

METRICS = ("accuracy", "accuracy_ovr", "f1", "precision", "recall")
COSTS = {
    "gmac": "GMAC of one image",
    "gflop": "GFLOP of one image",
    "peak_mib": "activations of the largest image, MiB",
    "latency_ms": "milliseconds of one image",
}
UNDEFINED = {"mean": None, "low": None, "high": None}
STYLES = {"teacher": ("tab:blue", "*"), "baseline": ("0.45", "s"), "kd": ("tab:orange", "o"), "kd_ad": ("tab:red", "D")}


class FrontierPoint(NamedTuple):
    """A network of one kind at one resolution, over its runs (seeds, folds)."""

    kind: str
    """Experiment without `resolution_`; `teacher` for the teacher network."""
    downsample: float
    runs: int
    cost: float
    score: float
    """Mean over the runs."""
    low: float
    high: float
    """Means over the runs of the ends of their bootstrap intervals."""
    least: float
    most: float
    """Extremes over the runs."""


def find_reports(pattern: str) -> list[tuple[str, dict[str, Any]]]:
    """Experiment and report of every finished run whose directory matches; copies of a run count once.

    Raises:
        UserError: no such run, or a damaged file of one.
    """
    runs = [Run(Path(name)) for name in sorted(glob.glob(str(pattern), recursive=True)) if Path(name).is_dir()]
    for run in runs:
        if run.fault is not None:
            raise UserError(run.fault)
    reporting = [run for run in runs if run.finished and (run.directory / "report.json").is_file()]
    kept = {run.directory for point in points_of(reporting) for run in point.runs}
    found = [(run.experiment, read_report(run.directory / "report.json")) for run in reporting if run.directory in kept]
    if not found:
        raise UserError(f"runs={pattern}: no finished run with a report.json there; quote the pattern")
    return found


def read_report(path: Path) -> dict[str, Any]:
    """The report of a run on images.

    Raises:
        UserError: damaged, or without the resolution, the cost or the intervals of a role.
    """
    report = read_json(path)
    roles = report.get("roles")
    whole = isinstance(roles, dict) and all(is_role(role) for role in roles.values())
    if not (whole and roles):
        raise UserError(f"{path} is damaged: it must hold downsample, cost and intervals of each role")
    return report


def is_role(role: Any) -> bool:
    """Whether a report says of a role what the frontier needs."""
    if not isinstance(role, dict) or not isinstance(role.get("downsample"), int | float):
        return False
    tables = [role.get("cost"), *(role[name] for name in ("plain", "balanced") if name in role)]
    intervals = [score for table in tables[1:] if isinstance(table, dict) for score in table.values()]
    return all(isinstance(table, dict) for table in tables) and all(map(is_interval, intervals))


def is_interval(score: Any) -> bool:
    """Whether it has a mean and its bounds, numbers or undefined all three."""
    if not isinstance(score, dict) or not {"mean", "low", "high"} <= score.keys():
        return False
    return len({score[name] is None for name in ("mean", "low", "high")}) == 1


def collect(reports: list[tuple[str, dict[str, Any]]], metric: str, cost: str, resampling: str) -> list[FrontierPoint]:
    """One point for each kind of network and resolution, the most expensive first.

    A teacher that students loaded is the network of its own run; it is taken from theirs only where that run is absent.

    Raises:
        UserError: runs without the cost asked for, or none in which the score is defined.
    """
    grouped: dict[tuple[str, float], list[dict[str, Any]]] = {}
    trained_teacher = any(set(report["roles"]) == {"teacher"} for _, report in reports)
    for experiment, report in reports:
        for role, found in report["roles"].items():
            if role == "teacher" and trained_teacher and len(report["roles"]) > 1:
                continue
            kind = "teacher" if role == "teacher" else experiment.removeprefix("resolution_")
            grouped.setdefault((kind, found["downsample"]), []).append(found)
    points = []
    for (kind, downsample), found in grouped.items():
        costs = [role["cost"].get(cost) for role in found]
        if None in costs and cost != "latency_ms":
            raise UserError(f"cost={cost} is not in the report of every {kind}: run it again with overwrite=true")
        if None in costs:
            raise UserError(f"cost={cost} was not measured: run with callbacks.images.latency_repeats=10")
        intervals = [role.get(resampling, {}).get(metric, UNDEFINED) for role in found]
        scores = [score for score in intervals if score["mean"] is not None]
        if scores:
            points.append(point_of(kind, downsample, statistics.fmean(costs), scores))
    if not points:
        raise UserError(f"metric={metric} is undefined in every run: take metric=accuracy or metric=f1")
    return sorted(points, key=lambda point: (-point.cost, point.kind))


def point_of(kind: str, downsample: float, cost: float, scores: list[dict[str, float]]) -> FrontierPoint:
    """Means and extremes of `scores`, one a run with `mean`, `low` and `high`."""
    means, lows, highs = ([score[name] for score in scores] for name in ("mean", "low", "high"))
    middle, low, high = (statistics.fmean(values) for values in (means, lows, highs))
    return FrontierPoint(kind, downsample, len(scores), cost, middle, low, high, min(means), max(means))


def cheapest_within(points: list[FrontierPoint], percent: float) -> FrontierPoint | None:
    """The cheapest student that loses at most `percent` of the teacher's score; None where there is none."""
    teachers = [point for point in points if point.kind == "teacher"]
    if not teachers:
        return None
    enough = max(point.score for point in teachers) * (1 - percent / 100)
    good = [point for point in points if point.kind not in ("teacher", "baseline") and point.score >= enough]
    return min(good, key=lambda point: (point.cost, -point.score), default=None)


def frontier_figure(points: list[FrontierPoint], metric: str, cost: str, percent: float) -> Figure:
    """Score with intervals against cost on a logarithmic axis, a line for each kind (the paper's Fig. 3)."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()  # an interval need not hold the mean: that of a collapsed student misses it by rounding
    kinds = list(dict.fromkeys(point.kind for point in points))
    for number, kind in enumerate(sorted(kinds, key=lambda name: list(STYLES).index(name) if name in STYLES else 99)):
        line = sorted((point for point in points if point.kind == kind), key=lambda point: point.cost)
        colour, marker = STYLES.get(kind, (f"C{number}", "^"))
        apart = 1.03 ** (number - len(kinds) / 2)  # intervals of equal cost side by side
        positions, size = [point.cost * apart for point in line], 10 if kind == "teacher" else 6
        scores = [100 * point.score for point in line]
        axes.plot(positions, scores, color=colour, marker=marker, markersize=size, label=kind)
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
    axes.legend(frameon=False, fontsize=8)
    return figure


def print_points(
    points: list[FrontierPoint], cheapest: FrontierPoint | None, percent: float, metric: str, cost: str, out: Path
) -> None:
    """The table and the answer."""
    table = Table("network", "side / original", "runs", cost, f"{metric}, %", "95 % interval", "over the runs")
    for point in points:
        table.add_row(
            point.kind,
            f"1/{point.downsample:g}",
            str(point.runs),
            f"{point.cost:.4g}",
            f"{100 * point.score:.2f}",
            f"{100 * point.low:.2f} to {100 * point.high:.2f}",
            f"{100 * point.least:.2f} to {100 * point.most:.2f}",
        )
    console = Console(width=max(Console().width, 100))
    console.print(table)
    if cheapest is None:
        console.print(f"no student is within {percent:g} % of the teacher")
    else:
        console.print(
            f"cheapest student within {percent:g} % of the teacher: {cheapest.kind} at 1/{cheapest.downsample:g}, "
            f"{cheapest.cost:.4g} {cost}"
        )
    console.print(f"figure in {out / 'frontier.png'}", soft_wrap=True, highlight=False, markup=False)
