"""How far a result would move with other test bags: bootstrap over whole bags, instances and all."""

import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

CELLS_AT_ONCE = 20_000_000
Scores = np.ndarray
"""(R,) values of one metric over resamples, NaN where undefined."""


class PredictedRows:
    """What one run predicted for its test bags or their instances.

    Args:
        directory: run directory.
        level: `bag` or `instance`.
        role: network.
    """

    def __init__(self, directory: Path, level: str, role: str) -> None:
        bags = pd.read_csv(directory / "bags.csv", usecols=lambda name: name in ("bag_id", "label", f"{role}_prob"))
        self.bag_ids = bags.bag_id.astype(str).tolist()
        if level == "bag":
            table, ranking = bags, f"{role}_prob"
            self.bag = np.arange(len(bags))
        else:
            wanted = ["bag_id", "label", f"{role}_prob", f"{role}_score"]
            table, ranking = pd.read_parquet(directory / "instances.parquet", columns=wanted), f"{role}_score"
            table = table[table.label >= 0]
            index_of = {bag_id: index for index, bag_id in enumerate(self.bag_ids)}
            self.bag = table.bag_id.astype(str).map(index_of).to_numpy(dtype=np.int64)
        self.labels = (table.label.to_numpy() > 0).astype(np.float64)
        self.probs = table[f"{role}_prob"].to_numpy(dtype=np.float64)
        self.ranking = table[ranking].to_numpy(dtype=np.float64)

    def resample(self, metric: str, resamples: int, seed: int) -> Scores:
        """`auroc`, `ap`, `accuracy` or `f1` over resamples of the bags; runs with the same test bags draw the same."""
        of_these_bags = zlib.crc32("\n".join(self.bag_ids).encode())
        generator = np.random.default_rng((seed, of_these_bags))
        bags, rows = len(self.bag_ids), max(len(self.labels), 1)
        values = []
        score = METRICS[metric](self)
        for start in range(0, resamples, at_once := max(1, CELLS_AT_ONCE // rows)):
            counts = generator.multinomial(bags, np.full(bags, 1 / bags), min(at_once, resamples - start))
            values.append(score(counts[:, self.bag].astype(np.float64)))
        return np.concatenate(values)


def auroc(rows: PredictedRows) -> Callable[[np.ndarray], Scores]:
    """Area under the ROC curve as a function of weights (R, N): ties count half."""
    order, groups = tie_groups(rows.ranking)
    positive = rows.labels[order]

    def score(weights: np.ndarray) -> Scores:
        weights = weights[:, order]
        up = np.add.reduceat(weights * positive, groups, axis=1)
        down = np.add.reduceat(weights * (1 - positive), groups, axis=1)
        below = down.cumsum(1) - down / 2
        return ratio((up * below).sum(1), up.sum(1) * down.sum(1))

    return score


def average_precision(rows: PredictedRows) -> Callable[[np.ndarray], Scores]:
    """Average precision as a function of weights (R, N)."""
    order, groups = tie_groups(-rows.ranking)
    positive = rows.labels[order]

    def score(weights: np.ndarray) -> Scores:
        weights = weights[:, order]
        up = np.add.reduceat(weights * positive, groups, axis=1)
        everything = np.add.reduceat(weights, groups, axis=1).cumsum(1)
        precision = ratio(up.cumsum(1), everything)
        return ratio(np.nansum(up * precision, axis=1), up.sum(1))

    return score


def accuracy(rows: PredictedRows) -> Callable[[np.ndarray], Scores]:
    """Accuracy at 0.5 as a function of weights (R, N)."""
    right = (rows.probs >= 0.5) == (rows.labels > 0)
    return lambda weights: ratio(weights @ right, weights.sum(1))


def f1(rows: PredictedRows) -> Callable[[np.ndarray], Scores]:
    """F1 at 0.5 as a function of weights (R, N)."""
    decided = (rows.probs >= 0.5).astype(np.float64)
    return lambda weights: ratio(2 * weights @ (decided * rows.labels), weights @ (decided + rows.labels))


METRICS: dict[str, Callable[[PredictedRows], Callable[[np.ndarray], Scores]]] = {
    "auroc": auroc,
    "ap": average_precision,
    "accuracy": accuracy,
    "f1": f1,
}


def tie_groups(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ascending order (N,), and where each run of equal scores starts in it."""
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    return order, np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])


def ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Quotient; NaN where the denominator is 0."""
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=np.asarray(below) != 0)
