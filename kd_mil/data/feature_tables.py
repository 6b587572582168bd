"""Feature bags that come as one `.npz`: the classic MIL benchmarks, and labelled feature vectors cut into bags."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kd_mil.data.bag import Bags, BagSplits
from kd_mil.data.built_bags import BuiltBags, LabelledInstances
from kd_mil.data.datamodules import BagDataModule, Loading
from kd_mil.data.feature_files import FeatureFile, open_arrays
from kd_mil.data.locations import find_root
from kd_mil.data.splits import hold_out, stratified_folds
from kd_mil.errors import UserError

BENCHMARK_SOURCE = (
    "the sets Musk (Dietterich et al. 1997, UCI Machine Learning Repository) and Fox, Tiger, Elephant "
    "(Andrews et al., NIPS 2002), each as an .npz with arrays X, bag, bag_label, bag_name,"
)
KATHER_SOURCE = (
    "the texture features of 5,000 tiles by J. N. Kather et al., Scientific Reports 2016, "
    "as features.npz with arrays X, y, class_name,"
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
        """As in `BagDataModule`; features are standardised after a split file had its say."""
        fresh = not hasattr(self, "splits")
        super().setup(stage)
        if fresh and self.standardise:
            self.splits = standardised(self.splits)


class FeatureClassesMIL(BuiltBags):
    """Bags cut by WENO's builder from feature vectors of known class, so that instance labels are known.

    The file `features.npz` holds `X` (N, D), `y` (N,) class index and `class_name` (C,). Instances are divided 60/20/20
    class by class before the bags are cut.

    Args:
        positive_classes: names of the classes that make a bag positive.
        root: folder of `features.npz`; None = looked for under `data_dir`.
        data_dir: folder of all data sets.
        loading: as in `BagDataModule`.
        standardise: scale every feature to mean 0 and variance 1 over the training instances.
        **bags: further arguments of `BuiltBags`: bag length, ratios, limits, split file, seed.
    """

    def __init__(
        self,
        positive_classes: Sequence[str],
        root: str | None,
        data_dir: str,
        loading: Loading,
        standardise: bool = True,
        **bags: Any,
    ) -> None:
        super().__init__(positive_classes, loading, **bags)
        self.root, self.data_dir, self.standardise = root, data_dir, standardise

    def read(self) -> dict[str, LabelledInstances]:
        folder = find_root(self.root, self.data_dir, ("kather2016-texture-features",), KATHER_SOURCE)
        everything = read_labelled(folder / "features.npz")
        positions = torch.arange(len(everything.labels))
        rest, test = hold_out(everything.labels, None, positions, 0.2, self.seed)
        train, val = hold_out(everything.labels, None, rest, 0.25, self.seed)
        return {"train": everything.select(train), "val": everything.select(val), "test": everything.select(test)}

    def setup(self, stage: str | None = None) -> None:
        """As in `BagDataModule`; features are standardised after a split file had its say."""
        fresh = not hasattr(self, "splits")
        super().setup(stage)
        if fresh and self.standardise:
            self.splits = standardised(self.splits)


def read_benchmark(path: Path) -> Bags:
    """The bags of an `.npz` with `X`, `bag`, `bag_label` and `bag_name`, the instances of a bag brought together.

    Raises:
        UserError: a missing or unreadable file or array, NaN features, or arrays that disagree.
    """
    features, (owner, labels, names) = _read_table(path, ("bag", "bag_label", "bag_name"))
    if len(owner) != len(features) or owner.min() < 0 or owner.max() >= len(labels):
        raise UserError(f"{path}: 'bag' must give, for each of {len(features)} instances, one of {len(labels)} bags")
    order = np.argsort(owner, kind="stable")
    return Bags(
        instances=features[torch.from_numpy(order)],
        sizes=torch.from_numpy(np.bincount(owner, minlength=len(labels))),
        labels=torch.from_numpy(labels.astype(np.int64)),
        bag_ids=[str(name).strip() for name in names],
    )


def read_labelled(path: Path) -> LabelledInstances:
    """The instances of an `.npz` with `X`, `y` and `class_name`; errors as in `read_benchmark`."""
    features, (labels, names) = _read_table(path, ("y", "class_name"))
    if len(labels) != len(features) or labels.min() < 0 or labels.max() >= len(names):
        raise UserError(f"{path}: 'y' must give, for each of {len(features)} instances, one of {len(names)} classes")
    return LabelledInstances(features, torch.from_numpy(labels.astype(np.int64)), tuple(str(name) for name in names))


def standardised(splits: BagSplits) -> BagSplits:
    """Features with mean 0 and variance 1 over the training instances; constant ones become 0."""
    bags = splits.bags
    assert isinstance(bags.instances, Tensor)
    train = bags.instances[bags.instances_of(splits.train).to(bags.device)]
    deviation, mean = torch.std_mean(train, dim=0, correction=0)
    scaled = (bags.instances - mean) / torch.where(deviation > 0, deviation, 1)
    return splits._replace(bags=replace(bags, instances=scaled))


def _read_table(path: Path, keys: Sequence[str]) -> tuple[Tensor, list[np.ndarray]]:
    """`X` (N, D) float32, and the arrays of the other keys."""
    file = FeatureFile(path)
    features = file.read(torch.arange(file.num_instances), torch.float32)
    arrays = open_arrays(path)
    for key in keys:
        if key not in arrays:
            raise UserError(f"{path} has no array {key!r}; it has {', '.join(arrays)}")
    return features, [np.asarray(arrays[key]) for key in keys]
