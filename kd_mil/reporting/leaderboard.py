"""Methods by their ranks over data sets (Demšar, JMLR 2006): Friedman's test, and which ranks differ by chance.

board = leaderboard(points, "bag_auroc"); board.mean_ranks, board.critical_difference
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from kd_mil.reporting.figures import broken, row_height
from kd_mil.reporting.runs import REPETITIONS, Point
from kd_mil.reporting.spread import mean_and_sd

USUAL_DATA = "data of the experiment"
EXCHANGES = 9999
"""Most permutations of ranks that are tried."""
DIGITS = 6
"""Of a result, that count: means over seeds differ by rounding."""


class Leaderboard(NamedTuple):
    """M methods on D data sets, on all of which each has a result; best mean rank first."""

    metric: str
    methods: list[str]
    data_sets: list[str]
    values: np.ndarray
    """(M, D) mean over seeds and folds."""
    mean_ranks: np.ndarray
    """(M,) from 1, the best; those alike in `DIGITS` digits share a rank."""
    friedman_p: float
    """That all methods are alike, by exchanging their ranks within each data set."""
    critical_difference: float
    """Of mean ranks, Nemenyi at 5 %; NaN below three methods, where `friedman_p` compares the two."""
    left_out: list[str]
    """Methods and data sets that have results, but not on, or of, all of these."""


def leaderboard(points: Sequence[Point], metric: str) -> Leaderboard | None:
    """Every network of every point as a method of its own; None without two of them on two data sets.

    What is lower the better ends in `loss`, `brier` or `ece`. Ranks would depend on where results are missing, so the
    largest choice of methods and data sets without a gap is taken, and the others are `left_out`.
    """
    table: dict[str, dict[str, float]] = {}
    for point in points:
        data, method = names_of(point)
        for role in dict.fromkeys(role for run in point.runs for role in run.roles):
            mean, _ = mean_and_sd(point.values(f"test/{role}/{metric}"))
            if mean is not None:
                table.setdefault(f"{method}, {role}", {})[data] = mean
    everything = list(dict.fromkeys(data for found in table.values() for data in found))
    ranked = without_gap([set(found) for found in table.values()])
    data_sets = [data for data in everything if data in ranked]
    whole = [method for method, found in table.items() if set(data_sets) <= set(found)]
    if len(whole) < 2 or len(data_sets) < 2:
        return None
    values = np.array([[table[method][data] for data in data_sets] for method in whole])
    lower = metric.endswith(("loss", "brier", "ece"))
    ranks = stats.rankdata((values if lower else -values).round(DIGITS), axis=0)
    order = np.argsort(ranks.mean(1), kind="stable")
    return Leaderboard(
        metric,
        [whole[index] for index in order],
        data_sets,
        values[order],
        ranks.mean(1)[order],
        friedman_p(ranks),
        critical_difference(len(whole), len(data_sets)),
        [name for name in [*table, *everything] if name not in {*whole, *data_sets}],
    )


def leaderboards(points: Sequence[Point], metrics: Sequence[str]) -> list[Leaderboard]:
    """Of each metric in which methods were run on several data sets."""
    return [board for metric in metrics if (board := leaderboard(points, metric)) is not None]


def without_gap(known: Sequence[set[str]]) -> set[str]:
    """The data sets, at least two, for which most results can be ranked; of equally many the most data sets.

    Args:
        known: data sets of each method.
    """
    choices = [one & other for index, one in enumerate(known) for other in known[index:]]
    results = [(sum(choice <= found for found in known), len(choice)) for choice in choices]
    sizes = [(methods * data, data) if min(methods, data) > 1 else (0, 0) for methods, data in results]
    return choices[sizes.index(max(sizes))] if sizes else set()


def friedman_p(ranks: np.ndarray) -> float:
    """p value of Friedman's statistic over ranks (M, D) of M methods, by permutation within each of D data sets.

    Exact where there are at most `EXCHANGES` of them, else drawn. The usual chi-square law holds for many data sets
    only: two that rank three methods alike give 0.135 by it, and 1/6 by counting.
    """

    def statistic(*methods: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.sum([method.sum(axis=axis) ** 2 for method in methods], axis=0)

    found = stats.permutation_test(
        list(ranks),
        statistic,
        permutation_type="samples",
        alternative="greater",
        vectorized=True,
        n_resamples=EXCHANGES,
        random_state=0,
    )
    return float(found.pvalue)


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


def leaderboard_text(board: Leaderboard) -> str:
    """What the ranks prove, and what is not among them, in words."""
    methods, sets = len(board.methods), len(board.data_sets)
    parts = [
        f"{methods} methods on {sets} data sets: p = {board.friedman_p:.3g} that all are alike (Friedman, permuted)"
    ]
    if board.critical_difference > 0:
        reached = "" if board.critical_difference <= methods - 1 else ", which so few data sets cannot reach"
        parts.append(f"mean ranks {board.critical_difference:.2f} apart differ at 5 % (Nemenyi){reached}")
        if alike(board.mean_ranks, board.critical_difference):
            parts.append("bars join those that do not")
    if board.left_out:
        parts.append(f"left out, since results are missing: {', '.join(board.left_out)}")
    return f"{'; '.join(parts)}."


def leaderboard_facts(board: Leaderboard) -> dict[str, Any]:
    """All but the values, which are in the table, for JSON; None where undefined."""
    difference = board.critical_difference
    return {
        "mean_ranks": dict(zip(board.methods, board.mean_ranks.tolist(), strict=True)),
        "data_sets": board.data_sets,
        "friedman_p": board.friedman_p,
        "critical_difference": None if math.isnan(difference) else difference,
        "left_out": board.left_out,
    }


def leaderboard_table(board: Leaderboard) -> pd.DataFrame:
    """`method, mean_rank` and a column of values for each data set."""
    columns = {"method": board.methods, "mean_rank": board.mean_ranks}
    return pd.DataFrame(columns | {name: board.values[:, index] for index, name in enumerate(board.data_sets)})


def alike(mean_ranks: np.ndarray, difference: float) -> list[tuple[int, int]]:
    """First and last of each largest group of ascending mean ranks (M,) closer than a difference; none if it is NaN."""
    if math.isnan(difference):
        return []
    ends = [int(np.flatnonzero(mean_ranks - first < difference)[-1]) for first in mean_ranks]
    return [(first, last) for first, last in enumerate(ends) if last > first and last not in ends[:first]]


def leaderboard_figure(board: Leaderboard) -> Figure:
    """Mean ranks, the best on top; a bar joins methods that lie closer than the critical difference."""
    names = [broken(name) for name in board.methods]
    figure = Figure(figsize=(9, 1.4 + row_height(names) * len(names)), layout="constrained")
    axes = figure.subplots()
    rows = np.arange(len(board.methods))[::-1]
    axes.plot(board.mean_ranks, rows, "o", color="0.2")
    for number, (first, last) in enumerate(alike(board.mean_ranks, board.critical_difference)):
        place = 1.02 + 0.02 * number  # right of the axes, in their width
        axes.plot(
            [place] * 2,
            rows[[first, last]],
            color="tab:blue",
            lw=4,
            transform=axes.get_yaxis_transform(),
            clip_on=False,
        )
    axes.set_yticks(rows, names, fontsize=8)
    axes.set(xlabel=f"mean rank in {board.metric}")
    axes.grid(axis="x", alpha=0.3)
    return figure
