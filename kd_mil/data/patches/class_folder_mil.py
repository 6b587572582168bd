"""WENO's image sets, CIFAR-10-MIL and CRC-MIL, and the same bags from anybody's class folders."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from kd_mil.core.errors import UserError
from kd_mil.data.datamodules import Loading
from kd_mil.data.loading import GIBIBYTE
from kd_mil.data.locations import find_root
from kd_mil.data.patches.built_bags import BuiltBags, LabelledInstances
from kd_mil.data.patches.class_folders import find_part, read_class_folders
from kd_mil.data.splits import hold_out


class ClassFolderMIL(BuiltBags):
    """Bags of images that lie in one folder per class.

    The root holds either `train` and `test` (and `val`, if wanted), each a folder of class folders or a tar archive of
    one, or the class folders themselves; these are divided class by class. Instances are (3, H, W) uint8. More pixels
    than `loading.resident_gib` stay in their files, unless they come from an archive.

    Args:
        positive_classes: names of the folders that make a bag positive.
        root: the folder; None = looked for under `data_dir` by the sets that have a name.
        data_dir: folder of all data sets.
        cache_dir: where decoded archives are kept.
        loading: as in `BagDataModule`.
        image_size: resize to squares of this many pixels; None = all images must have the same size.
        test_fraction: share of each class's images for testing where the root has no `train` and `test`.
        **bags: further arguments of `BuiltBags`: bag length, ratios, limits, split file, seed.
    """

    folders: tuple[str, ...] = ()
    """Names under which the set is found in `data_dir`."""
    source = "a folder of class folders"
    """What to download, from whom."""

    def __init__(
        self,
        positive_classes: Sequence[str],
        root: str | None,
        data_dir: str,
        cache_dir: str,
        loading: Loading,
        image_size: int | None = None,
        test_fraction: float = 0.2,
        **bags: Any,
    ) -> None:
        super().__init__(positive_classes, loading, **bags)
        self.root, self.data_dir, self.cache_dir = root, data_dir, cache_dir
        self.image_size, self.test_fraction = image_size, test_fraction

    def read(self) -> dict[str, LabelledInstances]:
        if self.root is None and not self.folders:
            raise UserError("data.root is not set: point it to the folder that holds one folder of images per class")
        return self.read_root(find_root(self.root, self.data_dir, self.folders, self.source))

    def read_root(self, root: Path) -> dict[str, LabelledInstances]:
        """The parts found in `root`, or made of its class folders."""
        found = {part: find_part(root, part) for part in ("train", "val", "test")} if root.is_dir() else {}
        sources = {part: source for part, source in found.items() if source is not None}
        if sources.keys() >= {"train", "test"}:
            return {part: self._read(source) for part, source in sources.items()}
        if sources:
            raise UserError(f"{root} holds {' and '.join(sources)}, but both train and test are needed")
        everything = self._read(root)
        positions = torch.arange(len(everything.labels))
        rest, test = hold_out(everything.labels, None, positions, self.test_fraction, self.seed)
        return {"train": everything.select(rest), "test": everything.select(test)}

    def _read(self, source: Path) -> LabelledInstances:
        return read_class_folders(
            source, image_size=self.image_size, cache_dir=self.cache_dir, max_gib=self.loading.host_bytes / GIBIBYTE
        )
