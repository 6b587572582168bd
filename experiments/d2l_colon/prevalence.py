"""Which instances Table I can be of: `python experiments/d2l_colon/prevalence.py DATA_DIR`.

With accuracy a and F1 f, true positives are a share t = f (1 - a) / (2 (1 - f)) of all instances, errors a share 1 - a.
So positives are at least t (no miss) and at most t + 1 - a (all errors are misses). The three rows of a fold have the
same instances: all three bounds hold. Random splits of each reading of the images say how often its folds meet them.
"""

import itertools
import sys

import numpy as np
from table_one import METRICS, PUBLISHED

from kd_mil.data.datamodules import Loading
from kd_mil.data.patches.colon_nuclei import ColonNuclei, Patching

ROUNDING = 0.005
DRAWS = 4000
READINGS: tuple[Patching, ...] = ("nuclei", "detections", "grid", "grid_nuclei")
ORDERS = np.array(list(itertools.permutations(range(5))))
Bounds = list[tuple[float, float]]


def bounds(accuracy: float, f1: float) -> tuple[float, float]:
    """Least and largest share of positive instances that both values allow, each rounded to two digits."""
    corners = [(accuracy + a, f1 + f) for a, f in itertools.product((-ROUNDING, ROUNDING), repeat=2)]
    hits = [f * (1 - a) / (2 * (1 - f)) for a, f in corners]
    misses = [hit + 1 - a for hit, (a, _) in zip(hits, corners, strict=True)]
    return min(hits), max(misses)


def bounds_of_folds() -> Bounds:
    """Bounds of each published fold that all three rows allow."""
    rows = [
        [bounds(*values) for values in zip(*(row[name] for name in METRICS[:2]), strict=True)]
        for row in PUBLISHED.values()
    ]
    return [(max(low for low, _ in fold), min(high for _, high in fold)) for fold in zip(*rows, strict=True)]


def share_of_folds(
    counts: np.ndarray, labels: np.ndarray, generator: np.random.Generator, folds: int = 5
) -> np.ndarray:
    """Positive share (folds,) of each fold of one random split of images (n,) that deals both labels evenly.

    Args:
        counts: (n, 2) instances and positive ones of each image.
        labels: (n,) of the images.
        generator: of the split.
        folds: how many.
    """
    order = generator.permutation(len(labels))
    order = order[labels[order].argsort(kind="stable")]
    together = np.stack([counts[order[fold::folds]].sum(axis=0) for fold in range(folds)])
    return together[:, 1] / together[:, 0]


def fits(shares: np.ndarray, wanted: Bounds) -> bool:
    """Whether the folds, in some order, lie within the bounds."""
    low, high = np.transpose(wanted)
    ordered = shares[ORDERS]
    return bool(((low <= ordered) & (ordered <= high)).all(axis=1).any())


def counts_of(data_dir: str, patching: Patching) -> tuple[np.ndarray, np.ndarray]:
    """Instances and positive ones (100, 2) of each image, and the labels (100,) of the images."""
    bags = ColonNuclei(None, data_dir, Loading(), patching=patching).load().bags
    positive = np.bincount(bags.bag_of_instance, bags.instance_labels, len(bags.labels))
    return np.stack([bags.sizes.numpy(), positive], axis=1), bags.labels.numpy()


def main(data_dir: str) -> None:
    """Bounds of every fold; for each reading its share of positives, and of random splits that meet the bounds."""
    wanted = bounds_of_folds()
    print("bounds of the folds: ", *(f"{low:.3f}-{high:.3f}" for low, high in wanted))
    for patching in READINGS:
        counts, labels = counts_of(data_dir, patching)
        generator = np.random.default_rng(0)
        met = sum(fits(share_of_folds(counts, labels, generator), wanted) for _ in range(DRAWS)) / DRAWS
        instances, positive = counts.sum(axis=0)
        print(f"{patching:12} {instances:.0f} instances, {positive / instances:.3f} positive, {met:.1%} of splits fit")


if __name__ == "__main__":
    main(sys.argv[1])
