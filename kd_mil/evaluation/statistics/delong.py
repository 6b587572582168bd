"""Areas under ROC curves with the variance of DeLong et al. (Biometrics 1988), alone and paired on the same bags.

delong(scores, labels).low; paired_delong(ours, theirs, labels).p

The bags must be independent: where cases have several, draw cases instead (`resampling`).
"""

import math
from typing import NamedTuple

import numpy as np
from scipy.stats import norm, rankdata


class Area(NamedTuple):
    """An area under the ROC curve; all NaN where a class is absent, all but the area where one has a single bag."""

    auroc: float
    standard_error: float
    low: float
    """Of the 95 % interval, cut at 0."""
    high: float
    """Cut at 1."""


class AreaDifference(NamedTuple):
    """Difference of two areas on the same bags; NaN as in `Area`."""

    difference: float
    standard_error: float
    low: float
    """Of the 95 % interval, cut at -1."""
    high: float
    """Cut at 1."""
    p: float
    """Two-sided; NaN where the standard error is 0: two classifiers that rank alike, or without a fault."""


def delong(scores: np.ndarray, labels: np.ndarray, level: float = 0.95) -> Area:
    """Area under the ROC curve with its standard error and Wald interval.

    Args:
        scores: (N,) the higher the more positive; equal ones count half.
        labels: (N,) in {0, 1}.
        level: of the interval, in (0, 1).
    """
    [area], [[variance]] = areas_and_covariance(np.asarray(scores)[None], labels)
    error = math.sqrt(variance)
    width = norm.ppf((1 + level) / 2) * error
    low, high = np.clip([area - width, area + width], 0, 1)
    return Area(float(area), error, float(low), float(high))


def paired_delong(ours: np.ndarray, theirs: np.ndarray, labels: np.ndarray, level: float = 0.95) -> AreaDifference:
    """Area of `ours` (N,) less that of `theirs` (N,), with interval and p value; the rest as in `delong`."""
    areas, covariance = areas_and_covariance(np.stack([ours, theirs]), labels)
    difference = float(areas[0] - areas[1])
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    error = math.sqrt(max(variance, 0.0))  # NaN stays NaN
    width = float(norm.ppf((1 + level) / 2)) * error
    p = 2 * float(norm.sf(abs(difference) / error)) if error > 1e-12 else math.nan
    low, high = np.clip([difference - width, difference + width], -1, 1)
    return AreaDifference(difference, error, float(low), float(high), p)


def areas_and_covariance(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Areas (K,) of K classifiers and the covariance (K, K) of them, by mid-ranks (Sun and Xu, SPL 2014).

    Args:
        scores: (K, N).
        labels: (N,) in {0, 1}.
    """
    positive = np.asarray(labels) > 0
    ups, downs = int(positive.sum()), int((~positive).sum())
    count = len(scores)
    if not (ups and downs):
        return np.full(count, math.nan), np.full((count, count), math.nan)
    among_all = rankdata(scores, axis=1)
    of_ups = (among_all[:, positive] - rankdata(scores[:, positive], axis=1)) / downs
    of_downs = 1 - (among_all[:, ~positive] - rankdata(scores[:, ~positive], axis=1)) / ups
    if min(ups, downs) < 2:
        return of_ups.mean(1), np.full((count, count), math.nan)
    covariance = np.atleast_2d(np.cov(of_ups)) / ups + np.atleast_2d(np.cov(of_downs)) / downs
    return of_ups.mean(1), covariance
