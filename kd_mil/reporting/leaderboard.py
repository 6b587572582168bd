"""Methods by their ranks over data sets (Demšar, JMLR 2006): Friedman's test, and which ranks differ by chance.

board = leaderboard(points, "bag_auroc"); board.mean_ranks, board.critical_difference
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from kd_mil.reporting.figures import literal
from kd_mil.reporting.runs import REPETITIONS, Point
from kd_mil.reporting.spread import mean_and_sd

USUAL_DATA = "data of the experiment"


class Leaderboard(NamedTuple):
    """M methods on D data sets, on all of which each has a result; best mean rank first."""

    metric: str
    methods: list[str]
    data_sets: list[str]
    values: np.ndarray
    """(M, D) mean over seeds and folds."""
    mean_ranks: np.ndarray
    """(M,) from 1, the best; equal results share a rank."""
    friedman_p: float
    """That all methods are alike; NaN below three methods or two data sets."""
    critical_difference: float
    """Of mean ranks, Nemenyi at 5 %; NaN as above."""


def leaderboard(points: Sequence[Point], metric: str) -> Leaderboard | None:
    """Every network of every point as a method of its own; None without two of them on two data sets.

    What is lower the better ends in `loss`, `brier` or `ece`. Methods without a result on all data sets are left out,
    since ranks of others would depend on where they are missing.
    """
    table: dict[str, dict[str, float]] = {}
    for point in points:
        data, method = names_of(point)
        for role in dict.fromkeys(role for run in point.runs for role in run.roles):
            mean, _ = mean_and_sd(point.values(f"test/{role}/{metric}"))
            if mean is not None:
                table.setdefault(f"{method}, {role}", {})[data] = mean
    data_sets = list(dict.fromkeys(data for found in table.values() for data in found))
    whole = {method: found for method, found in table.items() if len(found) == len(data_sets)}
    if len(whole) < 2 or len(data_sets) < 2:
        return None
    values = np.array([[found[data] for data in data_sets] for found in whole.values()])
    lower = metric.endswith(("loss", "brier", "ece"))
    ranks = stats.rankdata(values if lower else -values, axis=0).mean(1)
    order = np.argsort(ranks, kind="stable")
    methods = [list(whole)[index] for index in order]
    p = float(stats.friedmanchisquare(*values).pvalue) if len(methods) > 2 else math.nan
    return Leaderboard(
        metric, methods, data_sets, values[order], ranks[order], p, critical_difference(len(methods), len(data_sets))
    )


def names_of(point: Point) -> tuple[str, str]:
    """Data set and method of a point, by its settings."""
    settings = point.runs[0].overrides
    is_data = {key: key == "data" or key.startswith("data.") for key in settings}
    data = [
        value if key == "data" else f"{key}={value}"
        for key, value in sorted(settings.items())
        if is_data[key] and key not in REPETITIONS
    ]
    other = [f"{key}={value}" for key, value in point.settings.items() if not is_data.get(key, False)]
    return " ".join(data) or USUAL_DATA, " ".join([point.experiment, *other])


def critical_difference(methods: int, data_sets: int, level: float = 0.05) -> float:
    """Least difference of two mean ranks that is significant (Nemenyi); NaN below three methods."""
    if methods < 3:
        return math.nan
    quantile = float(stats.studentized_range.ppf(1 - level, methods, math.inf)) / math.sqrt(2)
    return quantile * math.sqrt(methods * (methods + 1) / (6 * data_sets))


def leaderboard_table(board: Leaderboard) -> pd.DataFrame:
    """`method, mean_rank` and a column of values for each data set."""
    columns = {"method": board.methods, "mean_rank": board.mean_ranks}
    return pd.DataFrame(columns | {name: board.values[:, index] for index, name in enumerate(board.data_sets)})


def leaderboard_figure(board: Leaderboard) -> Figure:
    """Mean ranks, the best on top; a bar as long as the critical difference from the best one."""
    figure = Figure(figsize=(9, 1.4 + 0.32 * len(board.methods)), layout="constrained")
    axes = figure.subplots()
    rows = np.arange(len(board.methods))[::-1]
    axes.plot(board.mean_ranks, rows, "o", color="0.2")
    if math.isfinite(board.critical_difference):
        best = board.mean_ranks[0]
        axes.axvspan(best, best + board.critical_difference, color="tab:blue", alpha=0.12)
    axes.set_yticks(rows, [literal(name) for name in board.methods], fontsize=8)
    difference = f", critical difference {board.critical_difference:.2f}" if board.critical_difference > 0 else ""
    axes.set(xlabel=f"mean rank in {board.metric} over {len(board.data_sets)} data sets{difference}")
    axes.grid(axis="x", alpha=0.3)
    return figure
