"""How far a result would move with other test cases: bootstrap over whole cases, bags, instances and all."""

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from kd_mil.reporting.predictions import ClassRows, HeldOut, PredictedRows, image_values, predicted_rows

CELLS_AT_ONCE = 20_000_000
Scores = np.ndarray
"""(R,) values of one metric over resamples, NaN where undefined."""
Weighted = Callable[[np.ndarray], Scores]
"""A metric as a function of how often (R, N) each row was drawn."""


class CaseDraws:
    """Test cases drawn with replacement: the same draws for all runs whose test sets share cases.

    A case that several runs test (seeds, or folds drawn anew) is drawn as often in all of them, so that looking at it
    twice is not taken for two cases. Test sets without a common case, as the folds of one division, are drawn apart.

    Args:
        test_sets: of each run, by its directory.
        resamples: R.
        seed: of the draws.
    """

    def __init__(self, test_sets: Mapping[Path, HeldOut], resamples: int, seed: int) -> None:
        self.test_sets, self.resamples, self.seed = test_sets, resamples, seed
        groups = overlapping([tested.cases for tested in test_sets.values()])
        pools: dict[int, dict[str, int]] = {}
        for group, tested in zip(groups, test_sets.values(), strict=True):
            pool = pools.setdefault(group, {})
            for case in tested.cases:
                pool.setdefault(case, len(pool))
        self._pools = {directory: pools[group] for directory, group in zip(test_sets, groups, strict=True)}

    def counts(self, directory: Path, rows: int) -> Iterator[np.ndarray]:
        """How often (r, bags or images of the run) each was drawn; as many resamples at once as `rows` allow."""
        pool, cases = self._pools[directory], self.test_sets[directory].cases
        position = np.array([pool[case] for case in cases])
        generator = np.random.default_rng((self.seed, zlib.crc32("\n".join(pool).encode())))
        at_once = max(1, CELLS_AT_ONCE // max(rows, len(pool)))
        for start in range(0, self.resamples, at_once):
            law, count = np.full(len(pool), 1 / len(pool)), min(at_once, self.resamples - start)
            yield generator.multinomial(len(pool), law, count)[:, position]

    def resample(self, directory: Path, role: str, metric: str) -> Scores | None:
        """A metric such as `bag_auroc` over the resamples; None where no table of the run has what it takes.

        Raises:
            UserError: a damaged table.
        """
        if directory not in self.test_sets:
            return None
        found = weighted_metric(directory, role, metric, self.test_sets[directory])
        if found is None:
            return None
        owners, score = found
        chunks = self.counts(directory, len(owners))
        return np.concatenate([score(counts[:, owners].astype(np.float64)) for counts in chunks])


def overlapping(sets: Sequence[Sequence[str]]) -> list[int]:
    """Number of the group that each set is in: sets with a common member are in one group, and so are their friends."""
    members = {member: index for index, member in enumerate(dict.fromkeys(name for names in sets for name in names))}
    columns = [members[name] for names in sets for name in names]
    rows = np.repeat(np.arange(len(sets)), [len(names) for names in sets])
    has = coo_array((np.ones(len(rows)), (rows, np.array(columns, dtype=np.int64))), (len(sets), len(members) or 1))
    return connected_components(has @ has.T, directed=False)[1].tolist()


def weighted_metric(directory: Path, role: str, metric: str, tested: HeldOut) -> tuple[np.ndarray, Weighted] | None:
    """Owners (N,) of the rows that a metric is made from, and the metric as a function of their weights."""
    level, _, name = metric.partition("_")
    if level == "pixel":
        values = image_values(directory, role, name, tested) if name in PIXEL_MEANS else None
        return None if values is None else (np.arange(len(values)), mean(values))
    rows = predicted_rows(directory, level, role, tested) if name in METRICS else None
    return None if rows is None or not len(rows.owners) else (rows.owners, METRICS[name](rows))


PIXEL_MEANS = ("f1", "iou")
"""Scores of pixels that are means over the images."""


def over_classes(score: Callable[[ClassRows], Weighted]) -> Callable[[PredictedRows], Weighted]:
    """The mean over the classes of a score of one against the rest; undefined where that of a class is."""

    def mean_score(rows: PredictedRows) -> Weighted:
        each = [score(rows_of_class) for rows_of_class in rows.classes]
        return lambda weights: np.mean([of_class(weights) for of_class in each], axis=0)

    return mean_score


def auroc(rows: ClassRows) -> Weighted:
    """Area under the ROC curve: ties count half."""
    order, groups = tie_groups(rows.ranking)
    positive = rows.labels[order]

    def score(weights: np.ndarray) -> Scores:
        weights = weights[:, order]
        up = np.add.reduceat(weights * positive, groups, axis=1)
        down = np.add.reduceat(weights * (1 - positive), groups, axis=1)
        below = down.cumsum(1) - down / 2
        return ratio((up * below).sum(1), up.sum(1) * down.sum(1))

    return score


def average_precision(rows: ClassRows) -> Weighted:
    """Average precision; undefined without a positive or without a negative label, as AUROC is."""
    order, groups = tie_groups(-rows.ranking)
    positive = rows.labels[order]

    def score(weights: np.ndarray) -> Scores:
        weights = weights[:, order]
        up = np.add.reduceat(weights * positive, groups, axis=1)
        everything = np.add.reduceat(weights, groups, axis=1).cumsum(1)
        precision, negatives = ratio(up.cumsum(1), everything), weights @ (1 - positive)
        return np.where(negatives > 0, ratio(np.nansum(up * precision, axis=1), up.sum(1)), np.nan)

    return score


def accuracy(rows: PredictedRows) -> Weighted:
    """Share of right decisions."""
    return lambda weights: ratio(weights @ rows.right, weights.sum(1))


def f1(rows: ClassRows) -> Weighted:
    """F1; undefined without a positive label, as in `evaluation.metrics`."""
    hit, either = rows.decided * rows.labels, rows.decided + rows.labels
    return lambda weights: np.where(weights @ rows.labels > 0, ratio(2 * weights @ hit, weights @ either), np.nan)


def mean(values: np.ndarray) -> Weighted:
    """Weighted mean of the values (N,) that are defined."""
    known = np.isfinite(values)
    return lambda weights: ratio(weights[:, known] @ values[known], weights[:, known].sum(1))


METRICS: dict[str, Callable[[PredictedRows], Weighted]] = {
    "auroc": over_classes(auroc),
    "ap": over_classes(average_precision),
    "accuracy": accuracy,
    "f1": over_classes(f1),
}


def tie_groups(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ascending order (N,), and where each run of equal scores starts in it."""
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    return order, np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])


def ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Quotient; NaN where the denominator is 0."""
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=np.asarray(below) != 0)
