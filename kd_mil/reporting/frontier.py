"""Accuracy against cost: the points of resolution distillation's runs, and the cheapest network that is good enough."""

import statistics
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

from kd_mil.core.errors import UserError
from kd_mil.reporting.cost_reports import CostReport
from kd_mil.reporting.paired import PairedCases, Tested

METRICS = ("accuracy", "accuracy_ovr", "f1", "precision", "recall")
COSTS = {
    "seconds": "seconds of one slide or image, from the file on",
    "bytes": "bytes read for one slide or image",
    "gmac": "GMAC of one slide or image",
    "gflop": "GFLOP of one image",
    "peak_mib": "activations of the largest image, MiB",
    "latency_ms": "milliseconds of one image",
}
UNDEFINED = {"mean": None, "low": None, "high": None}
ROUNDING = 1e-12


class FrontierPoint(NamedTuple):
    """A network of one kind at one resolution, over its runs (seeds, folds)."""

    kind: str
    """Experiment without `resolution_`; `teacher` for the teacher network."""
    settings: str
    """In which it differs from others of its kind, besides the resolution."""
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
    pairs: int = 0
    """Runs of a seed and test set that the best teacher has, too."""
    of_teacher: float | None = None
    """Its share of the teacher's score: over the pairs, or over all runs of both where there are none."""
    val_of_teacher: float | None = None
    """The same of validation scores: what a choice may go by."""
    less_low: float | None = None
    less_high: float | None = None
    """95 % interval over test cases of its score less the teacher's, paired; None where it cannot be resampled."""
    gain_low: float | None = None
    gain_high: float | None = None
    """The same of its score less that of the baseline of its resolution."""

    @property
    def name(self) -> str:
        """Kind and settings."""
        return f"{self.kind} {self.settings}".strip()


class Scored(NamedTuple):
    """What one run says of one network."""

    role: Mapping[str, Any]
    repetition: Hashable
    tested: Tested | None = None
    """Where its predictions are."""


Key = tuple[str, str, float]
"""Kind, settings, downsample."""


def collect(reports: Sequence[CostReport], metric: str, cost: str, resampling: str) -> list[FrontierPoint]:
    """One point for each kind of network, its settings and its resolution, the most expensive first.

    A teacher that students loaded is the network of its own run; it is taken from theirs only where that run is absent.

    Raises:
        UserError: runs without the cost asked for, or none in which the score is defined.
    """
    grouped = networks(reports)
    points: dict[Key, FrontierPoint] = {}
    tests: dict[Key, list[tuple]] = {}
    validations: dict[Key, list[tuple]] = {}
    for key, found in grouped.items():
        costs = [cost_of(one.role, cost, key[0]) for one in found]
        intervals = [one.role.get(resampling, {}).get(metric, UNDEFINED) for one in found]
        defined = [at for at, score in enumerate(intervals) if score["mean"] is not None]
        if defined:
            points[key] = point_of(key, statistics.fmean(costs), [intervals[at] for at in defined])
            tests[key] = [(found[at].repetition, intervals[at]["mean"]) for at in defined]
            chosen_by = [(one.repetition, one.role.get("val", {}).get(metric)) for one in found]
            validations[key] = [(repetition, score) for repetition, score in chosen_by if score is not None]
    if not points:
        raise UserError(f"metric={metric} is undefined in every run: take metric=accuracy or metric=f1")
    compared = compared_points(points, tests, validations, grouped, metric)
    return sorted(compared, key=lambda point: (-point.cost, point.name))


def networks(reports: Sequence[CostReport]) -> dict[Key, list[Scored]]:
    """The runs of each network."""
    grouped: dict[Key, list[Scored]] = {}
    trained_teacher = any(set(report.roles) == {"teacher"} for report in reports)
    for report in reports:
        for role, found in report.roles.items():
            if role == "teacher" and trained_teacher and len(report.roles) > 1:
                continue
            kind = "teacher" if role == "teacher" else report.experiment.removeprefix("resolution_")
            tested = None if report.directory is None else Tested(report.directory, role, report.repetition)
            one = Scored(found, report.repetition, tested)
            grouped.setdefault((kind, report.settings, found["downsample"]), []).append(one)
    return grouped


def cost_of(role: Mapping[str, Any], cost: str, kind: str) -> float:
    """A cost of a network of a run; UserError where it was not measured, and how to measure it."""
    found = role["cost"].get(cost)
    if found is None and cost == "latency_ms":
        raise UserError(f"cost={cost} was not measured: run with callbacks.images.latency_repeats=10")
    if found is None and cost in ("seconds", "bytes"):
        raise UserError(f"cost={cost} was not measured in every {kind}: run again with cost_of=4 overwrite=true")
    if found is None:
        raise UserError(f"cost={cost} is not in the report of every {kind}: run it again with overwrite=true")
    return float(found)


def point_of(key: Key, cost: float, scores: list[dict[str, float]]) -> FrontierPoint:
    """Means and extremes of `scores`, one a run with `mean`, `low` and `high`."""
    means, lows, highs = ([score[name] for score in scores] for name in ("mean", "low", "high"))
    middle, low, high = (statistics.fmean(values) for values in (means, lows, highs))
    return FrontierPoint(*key, len(scores), cost, middle, low, high, min(means), max(means))


def compared_points(
    points: Mapping[Key, FrontierPoint],
    tests: Mapping[Key, list[tuple]],
    validations: Mapping[Key, list[tuple]],
    grouped: Mapping[Key, list[Scored]],
    metric: str,
) -> list[FrontierPoint]:
    """The points beside the teacher that validation, or without it the test, likes best, and beside their baseline.

    Args:
        points: by kind, settings and downsample.
        tests, validations: (repetition, score) of their runs.
        grouped: all runs.
        metric: the score.
    """
    runs = {key: [one.tested for one in found if one.tested is not None] for key, found in grouped.items()}
    cases = PairedCases([run.directory for found in runs.values() for run in found])
    teacher = best_teacher(points, validations)
    compared = []
    for key, point in points.items():
        baseline = ("baseline", key[1], key[2])
        if baseline not in points:
            baseline = next((other for other in points if other[0] == "baseline" and other[2] == key[2]), baseline)
        if point.kind not in ("teacher", "baseline") and baseline in runs:
            low, high = cases.difference(runs[key], runs[baseline], metric)
            point = point._replace(gain_low=low, gain_high=high)
        if teacher is not None:
            share, pairs = share_of(tests[key], tests[teacher])
            low, high = cases.difference(runs[key], runs[teacher], metric) if key != teacher else (None, None)
            val, _ = share_of(validations[key], validations[teacher])
            told = {"pairs": pairs, "of_teacher": share, "val_of_teacher": val}
            point = point._replace(**told, less_low=low, less_high=high)  # type: ignore[arg-type]
        compared.append(point)
    return compared


def best_teacher(points: Mapping[Key, FrontierPoint], validations: Mapping[Key, list[tuple]]) -> Key | None:
    """The teacher of the highest mean validation score; of unvalidated ones the most expensive."""
    teachers = [key for key in points if key[0] == "teacher"]

    def rank(key: Key) -> tuple[bool, float, float]:
        scores = [score for _, score in validations[key]]
        return bool(scores), statistics.fmean(scores) if scores else 0.0, points[key].cost

    return max(teachers, key=rank, default=None)


def share_of(ours: list[tuple], theirs: list[tuple]) -> tuple[float | None, int]:
    """Ratio of two networks' mean scores over the runs that both have, and how many; over all runs where none is."""
    taught = dict(theirs)
    pairs = [(score, taught[repetition]) for repetition, score in ours if repetition in taught]
    if pairs:
        above, below = (statistics.fmean(side) for side in zip(*pairs, strict=True))
    elif ours and theirs:
        above, below = (statistics.fmean(score for _, score in side) for side in (ours, theirs))
    else:
        return None, 0
    return (above / below if below > 0 else None), len(pairs)


def cheapest_within(points: list[FrontierPoint], percent: float) -> FrontierPoint | None:
    """The cheapest network that loses at most `percent` of the teacher's **validation** score; None without one.

    Networks trained on labels at the student's resolution are candidates like the distilled ones.
    """
    enough = 1 - percent / 100 - ROUNDING
    candidates = [point for point in points if point.kind != "teacher" and point.val_of_teacher is not None]
    good = [point for point in candidates if point.val_of_teacher is not None and point.val_of_teacher >= enough]
    return min(good, key=lambda point: (point.cost, -(point.val_of_teacher or 0.0)), default=None)
