"""Feature bags that come as one `.npz`: the classic MIL benchmarks, and labelled feature vectors cut into bags."""

from pathlib import Path

import numpy as np
import torch

from kd_mil.core.errors import UserError
from kd_mil.data.bags import Bags, BagSplits
from kd_mil.data.datamodules import BagDataModule, Loading
from kd_mil.data.features.npz import read_arrays, standardised
from kd_mil.data.locations import find_root
from kd_mil.data.splits import stratified_folds

BENCHMARK_SOURCE = (
    "the sets Musk (Dietterich et al. 1997, UCI Machine Learning Repository) and Fox, Tiger, Elephant "
    "(Andrews et al., NIPS 2002), each as an .npz with arrays X, bag, bag_label, bag_name,"
)


class MILBenchmark(BagDataModule):
    """A whole set of feature bags in one file `NAME.npz`, cross-validated.

    Arrays: `X` (N, D) features, `bag` (N,) index of each instance's bag, `bag_label` (B,) 0 or 1, `bag_name` (B,).
    Instance labels are unknown.

    Args:
        name: file name without `.npz`: musk2, fox, tiger, ...
        root: folder of the file; None = looked for under `data_dir`.
        data_dir: folder of all data sets.
        loading: as in `BagDataModule`.
        fold: which of the folds is tested.
        num_folds: number of stratified folds.
        val_fraction: share of all bags held out for validation.
        standardise: scale every feature to mean 0 and variance 1 over the training instances.
        split_file: CSV `bag_id,split` that replaces the folds.
        seed: of the folds and the visiting order.
    """

    def __init__(
        self,
        name: str,
        root: str | None,
        data_dir: str,
        loading: Loading,
        fold: int = 0,
        num_folds: int = 10,
        val_fraction: float = 0.1,
        standardise: bool = True,
        split_file: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(loading, split_file, seed)
        self.name, self.root, self.data_dir, self.standardise = name, root, data_dir, standardise
        self.fold, self.num_folds, self.val_fraction = fold, num_folds, val_fraction

    def load(self) -> BagSplits:
        """Read the file, bring the instances of a bag together, and deal the bags to the folds."""
        folder = find_root(self.root, self.data_dir, ("mil-benchmarks",), BENCHMARK_SOURCE)
        bags = read_benchmark(folder / f"{self.name}.npz")
        return BagSplits(
            bags, *stratified_folds(bags.labels, None, self.fold, self.num_folds, self.val_fraction, self.seed)
        )

    def setup(self, stage: str | None = None) -> None:
        """As in `BagDataModule`; features are standardised once the split is known, a split file included."""
        fresh = not hasattr(self, "splits")
        super().setup(stage)
        if fresh and self.standardise:
            self.splits = standardised(self.splits)


def read_benchmark(path: Path) -> Bags:
    """The bags of an `.npz` with `X`, `bag`, `bag_label` and `bag_name`, the instances of a bag brought together.

    Raises:
        UserError: a missing or unreadable file or array, NaN features, or arrays that disagree.
    """
    features, (owner, labels, names) = read_arrays(path, ("bag", "bag_label", "bag_name"))
    if len(owner) != len(features) or owner.min() < 0 or owner.max() >= len(labels):
        raise UserError(f"{path}: 'bag' must give, for each of {len(features)} instances, one of {len(labels)} bags")
    order = np.argsort(owner, kind="stable")
    return Bags(
        instances=features[torch.from_numpy(order)],
        sizes=torch.from_numpy(np.bincount(owner, minlength=len(labels))),
        labels=torch.from_numpy(labels.astype(np.int64)),
        bag_ids=[str(name).strip() for name in names],
    )
