"""Scores of a cohort with intervals over its cases: all of it, and by subgroup; and its roles compared."""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from kd_mil.core.errors import UserError
from kd_mil.core.suggestions import did_you_mean
from kd_mil.evaluation.statistics.calibration import expected_calibration_error, top_class
from kd_mil.evaluation.statistics.delong import delong, paired_delong
from kd_mil.evaluation.statistics.proportions import decided_shares, wilson
from kd_mil.evaluation.statistics.resampling import case_counts, false_discovery_rates, percentiles, permutation_test
from kd_mil.evaluation.statistics.weighted_scores import (
    DECISIONS,
    METRICS,
    OF_CLASSES,
    OF_PROBABILITIES,
    PredictedRows,
    Weighted,
    binary_rows,
    class_rows,
)
from kd_mil.reporting.cohort.table import Cohort

ALL = "all"
ANALYTIC = ("DeLong", "Wilson")
"""Intervals that take rows for independent: of AUROC, and of shares of decisions."""


class Score(NamedTuple):
    """One number of a cohort or a part of it."""

    group: str
    """`all`, or `site=Leiden`."""
    role: str
    metric: str
    value: float
    low: float
    """Ends of the 95 % interval, NaN where there is none."""
    high: float
    interval: str
    """How it was found: `cases`, drawn with replacement, or one of `ANALYTIC`."""
    rows: int
    """Slides or cases."""
    cases: int
    positives: int
    """Of any class but the first."""


class Comparison(NamedTuple):
    """AUROC of one less that of another on the same rows."""

    ours: str
    theirs: str
    metric: str
    difference: float
    low: float
    high: float
    p: float
    p_adjusted: float
    """By Benjamini and Hochberg over all comparisons of the table."""
    test: str
    """`DeLong`, or `permutation` where cases have several rows or classes are more than two."""


def rows_of(cohort: Cohort, role: str) -> PredictedRows:
    """The predictions of a role, decided at its threshold."""
    probs, labels, owners = cohort.probs[role], cohort.labels, np.arange(len(cohort.ids))
    assert labels is not None
    if probs.shape[1] == 2:
        found = binary_rows(owners, labels > 0, probs[:, 1], probs[:, 1], cohort.thresholds[role])
    else:
        found = class_rows(owners, labels, probs)
    assert found is not None
    return found


def scores_of(cohort: Cohort, resamples: int, seed: int, group: str = ALL) -> list[Score]:
    """Every score of every role, each with the interval of a bootstrap over cases, some also with one of `ANALYTIC`.

    Those take rows for independent: they are there where no case has two. ECE has no interval: a resample repeats
    cases, which makes any model look less calibrated. A single case gives none either.
    """
    counts = np.concatenate(list(case_counts(cohort.cases, resamples, seed)))
    labels = cohort.labels
    assert labels is not None
    size = {"rows": len(cohort.ids), "cases": len(set(cohort.cases)), "positives": int((labels > 0).sum())}
    found = []
    for role, probs in cohort.probs.items():
        ends = _analytic(cohort, role) if size["cases"] == size["rows"] else {}
        for metric, score in _weighted(cohort, role):
            [value] = score(np.ones((1, len(labels))))
            known = math.isfinite(value) and size["cases"] > 1
            low, high = percentiles(score(counts)) if known else (math.nan, math.nan)
            found.append(Score(group, role, metric, float(value), low, high, "cases", **size))
            if metric in ends:
                low, high, kind = ends[metric]
                found.append(Score(group, role, metric, float(value), low, high, kind, **size))
        error = expected_calibration_error(*_events(probs, labels))
        found.append(Score(group, role, "ece", error, math.nan, math.nan, "", **size))
    return found


def _analytic(cohort: Cohort, role: str) -> dict[str, tuple[float, float, str]]:
    """Ends of an interval and its name, by metric."""
    probs, labels = cohort.probs[role], cohort.labels
    assert labels is not None
    shares = decided_shares(labels, cohort.decided(role), probs.shape[1])
    found = {metric: (*wilson(*share), "Wilson") for metric, share in shares.items()}
    if probs.shape[1] == 2:
        area = delong(probs[:, 1], labels)
        found["auroc"] = (area.low, area.high, "DeLong")
    return found


def _weighted(cohort: Cohort, role: str) -> Iterator[tuple[str, Weighted]]:
    rows = rows_of(cohort, role)
    yield from ((name, make(rows)) for name, make in (METRICS | DECISIONS | OF_PROBABILITIES).items())
    if len(rows.classes) > 1:
        named = list(zip(cohort.class_names, rows.classes, strict=True))
        yield from ((f"{name}_{word}", make(of_class)) for name, make in OF_CLASSES.items() for word, of_class in named)


def _events(probs: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of two classes the positive one, of more the most probable."""
    return (probs[:, 1], labels == 1) if probs.shape[1] == 2 else top_class(probs, labels)


def subgroup_scores(cohort: Cohort, columns: Sequence[str], resamples: int, seed: int) -> list[Score]:
    """The scores of each value of each column of `groups`; what is undefined in a small one is NaN, and counted.

    Raises:
        UserError: no such column.
    """
    require_groups(columns, cohort.groups.columns)
    found = []
    for column in dict.fromkeys(columns):
        values = cohort.groups[column].to_numpy()
        for value in sorted(set(values)):
            part = cohort.part(values == value)
            found += scores_of(part, resamples, seed, f"{column}={value or 'unknown'}")
    return found


def require_groups(columns: Sequence[str], known: Iterable[str]) -> None:
    """Refuse a subgroup that is no further column of the labels; UserError."""
    names = list(map(str, known))
    for column in columns:
        if column not in names:
            raise UserError(f"subgroups: the labels have no column {column!r}; {did_you_mean(column, names)}")


def comparisons_of(cohort: Cohort, other: Cohort | None, resamples: int, seed: int) -> list[Comparison]:
    """All pairs of roles and, with the predictions of another model for the same rows, each role with its counterpart.

    Args:
        cohort: with labels.
        other: the other model's, same ids in the same order.
        resamples: of the paired bootstrap, and most exchanges of the permutation test.
        seed: of both.
    """
    pairs = [(a, cohort.probs[a], b, cohort.probs[b]) for a, b in itertools.combinations(cohort.probs, 2)]
    if other is not None:
        for role, probs in cohort.probs.items():
            theirs = role if role in other.probs else other.decides
            pairs.append((role, probs, f"other {theirs}", other.probs[theirs]))
    found = [
        Comparison(a, b, "auroc", *_compared(cohort, ours, theirs, resamples, seed)) for a, ours, b, theirs in pairs
    ]
    adjusted = false_discovery_rates([one.p for one in found])
    return [one._replace(p_adjusted=math.nan if p is None else p) for one, p in zip(found, adjusted, strict=True)]


def _compared(
    cohort: Cohort, ours: np.ndarray, theirs: np.ndarray, resamples: int, seed: int
) -> tuple[float, float, float, float, float, str]:
    labels = cohort.labels
    assert labels is not None
    independent = len(set(cohort.cases)) == len(cohort.ids)
    if independent and ours.shape[1] == 2:
        found = paired_delong(ours[:, 1], theirs[:, 1], labels)
        return found.difference, found.low, found.high, found.p, math.nan, "DeLong"
    one = np.ones((1, len(labels)))

    def auroc(probs: np.ndarray) -> Weighted:
        owners = np.arange(len(labels))
        binary = probs.shape[1] == 2
        rows = (
            binary_rows(owners, labels > 0, probs[:, 1], probs[:, 1]) if binary else class_rows(owners, labels, probs)
        )
        assert rows is not None
        return METRICS["auroc"](rows)

    counts = np.concatenate(list(case_counts(cohort.cases, resamples, seed)))
    several = len(set(cohort.cases)) > 1
    low, high = percentiles(auroc(ours)(counts) - auroc(theirs)(counts)) if several else (math.nan, math.nan)
    difference, p = permutation_test(
        lambda probs: float(auroc(probs)(one)[0]), ours, theirs, cohort.cases, resamples, seed
    )
    return difference, low, high, p, math.nan, "permutation"
