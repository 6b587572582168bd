"""How far a result would move with other test cases: bootstrap over whole cases, bags, instances and all."""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from kd_mil.core.run_files import read_metrics
from kd_mil.evaluation.ranking import grouped_areas
from kd_mil.evaluation.statistics.lesions import ScoredSlide, found_lesions, weighted_froc
from kd_mil.evaluation.statistics.weighted_scores import (
    METRICS,
    OF_IMAGES,
    OF_PROBABILITIES,
    ClassRows,
    PredictedRows,
    Scores,
    Weighted,
    binary_rows,
    f1,
    iou,
    mean,
)
from kd_mil.reporting.predictions import (
    HeldOut,
    image_values,
    instance_rows,
    instance_table,
    positive_bags,
    predicted_rows,
)

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
        return self.scores(directory, *found)

    def scores(self, directory: Path, owners: np.ndarray, score: Weighted) -> Scores | None:
        """A score of a run's rows over the resamples; `owners` (N,) are their bags or images. None of a single case."""
        if len(self._pools[directory]) < 2:
            return None
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
    if level == "instance" and name in LESIONS:
        return lesion_metric(directory, role, name, tested)
    if level == "instance" and (reading or name.endswith(IN_POSITIVE_BAGS)):
        rows = instance_rows(directory / "instances.parquet", role, tested, reading)
        return None if rows is None else ranked_instances(rows, name, positive_bags(directory, tested))
    if level == "pixel":
        values = image_values(directory, role, name, tested) if name in PIXEL_MEANS else None
        return None if values is None else (np.arange(len(values)), mean(values))
    return decided_rows(directory, role, level, name, tested)


def decided_rows(
    directory: Path, role: str, level: str, name: str, tested: HeldOut
) -> tuple[np.ndarray, Weighted] | None:
    """As `weighted_metric`, for bags, cases, images or all instances, decided at 0.5 or, `_tuned`, by validation."""
    known = METRICS | (OF_PROBABILITIES if level != "instance" else {}) | (OF_IMAGES if level == "image" else {})
    plain, threshold = name.removesuffix("_tuned"), 0.5
    if plain != name:
        chosen = threshold_of(directory, role, level)
        if plain not in ("accuracy", "f1") or chosen is None:
            return None
        threshold = chosen
    rows = predicted_rows(directory, level, role, tested, threshold) if plain in known else None
    return None if rows is None or not len(rows.owners) else (rows.owners, known[plain](rows))


def threshold_of(directory: Path, role: str, level: str) -> float | None:
    """Probability from which on a role decides for bags, cases or instances, chosen on validation; None if unknown."""
    return read_metrics(directory / "metrics.json").get(f"test/{role}/{level}_threshold")


def lesion_metric(directory: Path, role: str, name: str, tested: HeldOut) -> tuple[np.ndarray, Weighted] | None:
    """As `weighted_metric`, for the scores of `evaluation.scorecard.lesion_scores`, from tiles with coordinates."""
    prob, least = f"{role}_prob", threshold_of(directory, role, "instance")
    table = instance_table(directory / "instances.parquet", ["x", "y", prob], tested)
    table = None if table is None else table[table.x >= 0]
    if table is None or least is None or not len(table):
        return None
    if name == "froc":
        owners, groups = zip(*table.groupby("owner"), strict=True)
        slides = [
            ScoredSlide(rows[["x", "y"]].to_numpy(), rows[prob].to_numpy(np.float64), rows.label.to_numpy())
            for rows in groups
        ]
        return np.array(owners, dtype=np.int64), weighted_froc(found_lesions(slides, least))
    table = table[table.label >= 0]
    probs = table[prob].to_numpy(np.float64)
    rows = binary_rows(table.owner.to_numpy(), table.label.to_numpy() > 0, probs, probs, least)
    if rows is None or not len(rows.owners):
        return None
    return rows.owners, (f1 if name == "dice_tuned" else iou)(rows.classes[0])


def ranked_instances(rows: PredictedRows, name: str, positive: np.ndarray) -> tuple[np.ndarray, Weighted] | None:
    """As `weighted_metric`, for a ranking of instances such as `auroc_within`.

    Args:
        rows: instances with a known label.
        name: `auroc` or `ap`, of all, `_within` positive bags, or `_per_bag`.
        positive: (B,) whether each test bag is.
    """
    name, where = next(((name.removesuffix(end), end) for end in IN_POSITIVE_BAGS if name.endswith(end)), (name, ""))
    if name not in RANKINGS:
        return None
    [ranked] = rows.classes
    if where:
        inside = positive[rows.owners]
        ranked = ClassRows(*(column[inside] for column in ranked))
        rows = PredictedRows(rows.owners[inside], [ranked], rows.right[inside])
    if not len(rows.owners):
        return None
    if where != "_per_bag":
        return rows.owners, METRICS[name](rows)
    order = np.lexsort((-ranked.ranking, rows.owners))
    bags, groups = np.unique(rows.owners[order], return_inverse=True)
    scores, truth = (torch.from_numpy(column[order]) for column in (ranked.ranking, ranked.labels > 0))
    values = grouped_areas(scores, truth, torch.from_numpy(groups))[RANKINGS.index(name)]
    return bags, mean(values.numpy())


IN_POSITIVE_BAGS = ("_within", "_per_bag")
"""End the names of rankings of the instances of positive bags, pooled or bag by bag."""
RANKINGS = ("auroc", "ap")
"""Scores of an order alone, as `grouped_areas` returns them."""
PIXEL_MEANS = ("f1", "iou")
"""Scores of pixels that are means over the images."""
LESIONS = ("froc", "dice_tuned", "iou_tuned")
"""Scores of tiles as areas."""
