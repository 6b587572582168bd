"""Every point, role and metric with spread and interval, and its paired test against a baseline."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from scipy import stats
from tqdm import tqdm

from kd_mil.core.errors import UserError
from kd_mil.evaluation.bootstrap import interval
from kd_mil.reporting.resampling import METRICS, PredictedRows
from kd_mil.reporting.runs import Point, Run

ROUNDING = 1e-6
"""Differences between runs closer than this are equal."""


@dataclass
class Versus:
    """A point less the baseline, over runs of the same seed and the same test bags."""

    pairs: int
    difference: float
    low: float | None
    high: float | None
    """95 % bootstrap interval over test bags; None where there are no predictions to resample."""
    p: float | None
    """Paired t test over the runs; None for fewer than two pairs, or equal differences."""
    p_holm: float | None = None
    """Corrected for the number of points and roles compared in this metric."""


@dataclass
class Entry:
    """One metric of one network of one point."""

    point: str
    role: str
    metric: str
    values: list[float | None]
    mean: float | None
    sd: float | None
    low: float | None
    high: float | None
    """95 % bootstrap interval of the mean over test bags."""
    versus: Versus | None = None
    resampled: list[np.ndarray | None] = field(default_factory=list, repr=False)
    """Of each run, (R,) values."""

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {key: value for key, value in asdict(self).items() if key != "resampled"}


def entries_of(points: Sequence[Point], metrics: Sequence[str], resamples: int, seed: int) -> list[Entry]:
    """The entries of all points, in the order of points, roles and metrics; what no run has is left out."""
    entries = []
    for point in tqdm(points, desc="bootstrap", unit="point", disable=None, leave=False):
        roles = list(dict.fromkeys(role for run in point.runs for role in run.roles))
        for role in roles:
            for metric in metrics:
                values = point.values(f"test/{role}/{metric}")
                if any(value is not None for value in values):
                    drawn = [resampled(run, role, metric, resamples, seed) for run in point.runs]
                    entries.append(entry(point, role, metric, values, drawn))
    return entries


def entry(point: Point, role: str, metric: str, values: list[float | None], drawn: list[np.ndarray | None]) -> Entry:
    """Mean and spread over the defined values, and the interval of the mean."""
    known = [value for value in values if value is not None]
    low, high = bounds(mean_of(drawn))
    spread = statistics.stdev(known) if len(known) > 1 else None
    return Entry(point.name, role, metric, values, statistics.fmean(known), spread, low, high, None, drawn)


def resampled(run: Run, role: str, metric: str, resamples: int, seed: int) -> np.ndarray | None:
    """The metric over resamples of a run's test bags; None where its predictions are not on file."""
    level, _, name = metric.partition("_")
    if level not in ("bag", "instance") or name not in METRICS or not (run.directory / "bags.csv").is_file():
        return None
    try:
        return PredictedRows(run.directory, level, role).resample(name, resamples, seed)
    except (KeyError, FileNotFoundError, ValueError):  # more than two classes, or a method without instances
        return None


def mean_of(drawn: Sequence[np.ndarray | None]) -> np.ndarray | None:
    """Mean over runs in each resample; None if one of them has none."""
    whole = [values for values in drawn if values is not None]
    return np.mean(whole, axis=0) if whole and len(whole) == len(drawn) else None


def bounds(values: np.ndarray | None) -> tuple[float | None, float | None]:
    """Ends of the 95 % interval."""
    if values is None:
        return None, None
    found = interval(torch.from_numpy(values))
    return (None, None) if math.isnan(found.low) else (found.low, found.high)


def baseline_point(points: Sequence[Point], name: str) -> Point:
    """The point of this name, or the only one of this experiment.

    Raises:
        UserError: there is none, or more than one.
    """
    found = [point for point in points if point.name == name] or [p for p in points if p.experiment == name]
    if len(found) == 1:
        return found[0]
    known = "; ".join(f"'{point.name}'" for point in (found or points))
    raise UserError(f"baseline={name}: {'choose one of' if found else 'no such point, known:'} {known}")


def compare(entries: Sequence[Entry], points: Sequence[Point], baseline: Point) -> None:
    """Fill in `versus` of all entries but the baseline's, with p values corrected over the points of each metric.

    A role is compared with the same role of the baseline, or with its only one.
    """
    by_name = {point.name: point for point in points}
    reference = {(one.role, one.metric): one for one in entries if one.point == baseline.name}
    roles = list(dict.fromkeys(role for role, _ in reference))
    for one in entries:
        role = one.role if one.role in roles else roles[0] if len(roles) == 1 else None
        other = reference.get((role or "", one.metric))
        if one.point != baseline.name and other is not None:
            one.versus = versus(one, by_name[one.point].runs, other, baseline.runs)
    for metric in dict.fromkeys(one.metric for one in entries):
        tested = [one.versus for one in entries if one.metric == metric and one.versus and one.versus.p is not None]
        for test, corrected in zip(tested, holm([test.p for test in tested]), strict=True):  # type: ignore[misc]
            test.p_holm = corrected


def versus(one: Entry, runs: Sequence[Run], other: Entry, others: Sequence[Run]) -> Versus | None:
    """The difference over pairs of runs; None without any pair."""
    place = {run.repetition: index for index, run in enumerate(others)}
    pairs = [(i, place[run.repetition]) for i, run in enumerate(runs) if run.repetition in place]
    pairs = [(i, j) for i, j in pairs if one.values[i] is not None and other.values[j] is not None]
    if not pairs:
        return None
    differences = np.array([one.values[i] - other.values[j] for i, j in pairs])  # type: ignore[operator]
    drawn = [difference(one.resampled[i], other.resampled[j]) for i, j in pairs]
    spread = np.ptp(differences) > ROUNDING  # without it, a t test would take rounding for certainty
    p = float(stats.ttest_1samp(differences, 0).pvalue) if spread else math.nan
    low, high = bounds(mean_of(drawn))
    return Versus(len(pairs), float(differences.mean()), low, high, None if math.isnan(p) else p)


def difference(ours: np.ndarray | None, theirs: np.ndarray | None) -> np.ndarray | None:
    """Over the same resamples; None if either has none."""
    return None if ours is None or theirs is None else ours - theirs


def holm(p: Sequence[float]) -> list[float]:
    """p values corrected for their number (Holm 1979)."""
    order = sorted(range(len(p)), key=lambda index: p[index])
    corrected, largest = [0.0] * len(p), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p) - rank) * p[index]))
        corrected[index] = largest
    return corrected
