"""How far a result would move with other test cases: bootstrap over whole cases, bags, instances and all."""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from kd_mil.evaluation.ranking import grouped_areas
from kd_mil.evaluation.statistics.weighted_scores import METRICS, ClassRows, PredictedRows, Scores, Weighted, mean
from kd_mil.reporting.predictions import HeldOut, image_values, instance_rows, positive_bags, predicted_rows

CELLS_AT_ONCE = 20_000_000


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
    reading, _, metric = metric.rpartition("/")
    level, _, name = metric.partition("_")
    if level == "instance" and (reading or name.endswith(IN_POSITIVE_BAGS)):
        return ranked_instances(directory, role, reading, name, tested)
    if level == "pixel":
        values = image_values(directory, role, name, tested) if name in PIXEL_MEANS else None
        return None if values is None else (np.arange(len(values)), mean(values))
    rows = predicted_rows(directory, level, role, tested) if name in METRICS else None
    return None if rows is None or not len(rows.owners) else (rows.owners, METRICS[name](rows))


def ranked_instances(
    directory: Path, role: str, reading: str, name: str, tested: HeldOut
) -> tuple[np.ndarray, Weighted] | None:
    """As `weighted_metric`, for a ranking of instances such as `auroc_within`, in the role's word or in a reading."""
    rows = instance_rows(directory / "instances.parquet", role, tested, reading)
    name, where = next(((name.removesuffix(end), end) for end in IN_POSITIVE_BAGS if name.endswith(end)), (name, ""))
    if rows is None or name not in RANKINGS:
        return None
    [ranked] = rows.classes
    if where:
        inside = positive_bags(directory, tested)[rows.owners]
        ranked = ClassRows(*(column[inside] for column in ranked))
        rows = PredictedRows(rows.owners[inside], [ranked], rows.right[inside])
    if not len(rows.owners):
        return None
    if where != "_per_bag":
        return rows.owners, METRICS[name](rows)
    order = np.lexsort((-ranked.ranking, rows.owners))
    bags, groups = np.unique(rows.owners[order], return_inverse=True)
    scores, positive = (torch.from_numpy(column[order]) for column in (ranked.ranking, ranked.labels > 0))
    values = grouped_areas(scores, positive, torch.from_numpy(groups))[RANKINGS.index(name)]
    return bags, mean(values.numpy())


IN_POSITIVE_BAGS = ("_within", "_per_bag")
"""End the names of rankings of the instances of positive bags, pooled or bag by bag."""
RANKINGS = ("auroc", "ap")
"""Scores of an order alone, as `grouped_areas` returns them."""
PIXEL_MEANS = ("f1", "iou")
"""Scores of pixels that are means over the images."""
