"""Every point, role and metric with spread and interval, and its paired difference to a baseline."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from scipy import stats
from tqdm import tqdm

from kd_mil.core.errors import UserError
from kd_mil.evaluation.bootstrap import interval
from kd_mil.reporting.resampling import CaseDraws, overlapping
from kd_mil.reporting.runs import Point, Run
from kd_mil.reporting.spread import mean_and_sd

COST, ALL_ROLES = "cost/", "all"
"""Beginning of the metrics that are of no single role, and what stands in place of one."""
ROUNDING = 1e-6
"""Differences between runs closer than this are equal."""


@dataclass
class PairedDifference:
    """A point less its baseline, over pairs of runs of the same seed and the same test bags."""

    pairs: int
    difference: float
    """Mean over the pairs."""
    values: list[float]
    """Of each pair."""
    low: float | None
    high: float | None
    """95 % bootstrap interval over test cases; None where there are no predictions to resample."""
    p: float | None
    """Paired t test over `independent` differences; None for fewer than two, equal ones, or costs."""
    p_holm: float | None = None
    """Corrected for the number of points and roles compared in this metric."""
    independent: int = 0
    """Differences that the t test takes for independent; see `independent_differences`."""
    over: str = "seeds"
    """What those are: `seeds` of one test set, or `test sets` without a common case."""


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
    """95 % bootstrap interval of the mean over test cases."""
    versus: PairedDifference | None = None
    resampled: list[np.ndarray | None] = field(default_factory=list, repr=False)
    """Of each run, (R,) values."""

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {key: value for key, value in asdict(self).items() if key != "resampled"}


def entries_of(points: Sequence[Point], metrics: Sequence[str], resamples: int, seed: int) -> list[Entry]:
    """The entries of all points, in the order of points, roles and metrics; what no run has is left out.

    Raises:
        UserError: a damaged table of predictions.
    """
    tested = {run.directory: run.held_out for point in points for run in point.runs}
    draws = CaseDraws({path: known for path, known in tested.items() if known is not None}, resamples, seed)
    entries = []
    for point in tqdm(points, desc="bootstrap", unit="point", disable=None, leave=False):
        roles = list(dict.fromkeys(role for run in point.runs for role in run.roles))
        costs = [metric for metric in metrics if metric.startswith(COST) and any(point.values(metric))]
        entries += [cost_entry(point, metric) for metric in costs]
        for role in roles:
            for metric in metrics:
                values = point.values(f"test/{role}/{metric}")
                if any(value is not None for value in values):
                    drawn = [draws.resample(run.directory, role, metric) for run in point.runs]
                    entries.append(entry_of(point, role, metric, values, drawn))
    return entries


def cost_entry(point: Point, metric: str) -> Entry:
    """What a prediction costs, all roles together: the spread is over bag sizes of other folds, and no chance."""
    values = point.values(metric)
    mean, sd = mean_and_sd(values)
    return Entry(point.name, ALL_ROLES, metric, values, mean, sd, None, None, None, [None] * len(values))


def entry_of(point: Point, role: str, metric: str, values: list[float | None], drawn: list[np.ndarray | None]) -> Entry:
    """Mean and spread over the defined values, and the interval of that mean."""
    mean, sd = mean_and_sd(values)
    low, high = bounds(mean_of([some for some, value in zip(drawn, values, strict=True) if value is not None]))
    return Entry(point.name, role, metric, values, mean, sd, low, high, None, drawn)


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


def baselines_of(points: Sequence[Point], name: str) -> dict[str, Point]:
    """For each point, by its name, the point it is compared with.

    Args:
        points: all there are.
        name: a point, which all others are compared with, or an experiment. Of an experiment with several points, each
            point of another experiment has the one whose settings it shares: `weno aggregator=abmil hpm.start_epoch=5`
            is compared with `mil aggregator=abmil`. A point without such a partner is compared with none.

    Raises:
        UserError: no such point, none that any other could be compared with, or two for one point.
    """
    found = [point for point in points if point.name == name] or [p for p in points if p.experiment == name]
    if not found:
        raise UserError(f"baseline={name}: no such point, known: {quoted_names(points)}")
    others = [point for point in points if all(point.name != other.name for other in found)]
    if len(found) == 1:
        return {point.name: found[0] for point in others}
    partners = {point.name: partner(point, found) for point in others}
    paired = {name: other for name, other in partners.items() if other is not None}
    if not paired:
        raise UserError(f"baseline={name}: choose one of {quoted_names(found)}")
    return paired


def partner(point: Point, candidates: Sequence[Point]) -> Point | None:
    """The candidate with the most settings, all of which the point shares; None where there is none.

    Raises:
        UserError: two that share as many.
    """
    alike = [other for other in candidates if other.settings.items() <= point.settings.items()]
    most = max((len(other.settings) for other in alike), default=0)
    closest = [other for other in alike if len(other.settings) == most]
    if len(closest) > 1:
        raise UserError(f"baseline: '{point.name}' could be compared with {quoted_names(closest)}: name one of them")
    return closest[0] if closest else None


def quoted_names(points: Sequence[Point]) -> str:
    """Names as they can be given on the command line."""
    return "; ".join(f"'{point.name}'" for point in points)


def compare(entries: Sequence[Entry], points: Sequence[Point], baselines: Mapping[str, Point]) -> None:
    """Fill in `versus` of all entries that have a baseline, p values corrected over the points of each metric.

    A role is compared with the same role of the baseline, or with its only one.
    """
    runs = {point.name: point.runs for point in points}
    for entry in entries:
        baseline = baselines.get(entry.point)
        if baseline is not None:
            theirs = [other for other in entries if other.point == baseline.name]
            other = counterpart(entry, theirs)
            if other is not None:
                entry.versus = paired_difference(entry, runs[entry.point], other, baseline.runs)
    for metric in dict.fromkeys(entry.metric for entry in entries):
        tested = [entry.versus for entry in entries if entry.metric == metric and entry.versus]
        known = [(versus, versus.p) for versus in tested if versus.p is not None]
        for (versus, _), corrected in zip(known, holm([p for _, p in known]), strict=True):
            versus.p_holm = corrected


def counterpart(entry: Entry, baseline: Sequence[Entry]) -> Entry | None:
    """The baseline's entry of the same metric and role, or of its only role; None where there is none."""
    roles = {other.role for other in baseline}
    role = entry.role if entry.role in roles or len(roles) != 1 else next(iter(roles))
    return next((other for other in baseline if (other.role, other.metric) == (role, entry.metric)), None)


def paired_difference(
    entry: Entry, runs: Sequence[Run], other: Entry, others: Sequence[Run]
) -> PairedDifference | None:
    """The difference over pairs of runs of the same repetition; None without any pair."""
    index_of = {run.repetition: index for index, run in enumerate(others)}
    pairs = [(index, index_of[run.repetition]) for index, run in enumerate(runs) if run.repetition in index_of]
    pairs = [(i, j) for i, j in pairs if entry.values[i] is not None and other.values[j] is not None]
    if not pairs:
        return None
    differences = np.array([entry.values[i] - other.values[j] for i, j in pairs])  # type: ignore[operator]
    low, high = bounds(mean_of([difference(entry.resampled[i], other.resampled[j]) for i, j in pairs]))
    independent, over = independent_differences(differences, [runs[i] for i, _ in pairs])
    spread = len(independent) > 1 and np.ptp(independent) > ROUNDING  # else a t test takes rounding for certainty
    spread &= not entry.metric.startswith(COST)  # counted, not sampled
    p = float(stats.ttest_1samp(independent, 0).pvalue) if spread else None
    mean, values = float(differences.mean()), differences.tolist()
    return PairedDifference(len(pairs), mean, values, low, high, p, None, len(independent), over)


def independent_differences(differences: np.ndarray, runs: Sequence[Run]) -> tuple[np.ndarray, str]:
    """The differences that a t test may take for independent, and what they are of.

    Of several test sets without a common case, as the folds of one division, each gives one: the mean over its seeds.
    Runs on one and the same test set give one each, and speak of other seeds, not of other cases. Test sets that share
    some of their cases, as divisions drawn anew, give none.
    """
    cases = [sorted(run.held_out.cases) if run.held_out else [str(run.record.get("data_fingerprint"))] for run in runs]
    groups = np.array(overlapping(cases))
    if len(set(groups)) > 1:
        return np.array([differences[groups == group].mean() for group in dict.fromkeys(groups)]), "test sets"
    same = all(other == cases[0] for other in cases)
    return (differences if same else differences[:0]), "seeds"


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
