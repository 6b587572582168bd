"""KatherMIL: bags built from Kather's texture features of colorectal tissue."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kd_mil.core.errors import UserError
from kd_mil.data.datamodules import Loading
from kd_mil.data.features.npz import read_arrays, standardised
from kd_mil.data.locations import find_root
from kd_mil.data.patches.built_bags import BuiltBags, LabelledInstances
from kd_mil.data.splits import hold_out

KATHER_SOURCE = (
    "the texture features of 5,000 tiles by J. N. Kather et al., Scientific Reports 2016, "
    "as features.npz with arrays X, y, class_name,"
)


class KatherMIL(BuiltBags):
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
        """As in `BagDataModule`; features are standardised once the split is known, a split file included."""
        fresh = not hasattr(self, "splits")
        super().setup(stage)
        if fresh and self.standardise:
            self.splits = standardised(self.splits)


def read_labelled(path: Path) -> LabelledInstances:
    """The instances of an `.npz` with `X`, `y` and `class_name`; errors as in `read_benchmark`."""
    features, (labels, names) = read_arrays(path, ("y", "class_name"))
    if len(labels) != len(features) or labels.min() < 0 or labels.max() >= len(names):
        raise UserError(f"{path}: 'y' must give, for each of {len(features)} instances, one of {len(names)} classes")
    return LabelledInstances(features, torch.from_numpy(labels.astype(np.int64)), tuple(str(name) for name in names))
