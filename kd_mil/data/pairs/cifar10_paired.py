"""Cifar10Paired: CIFAR-10 at two resolutions."""

from pathlib import Path
from typing import Any

import torch

from kd_mil.core.errors import UserError
from kd_mil.data.locations import find_root
from kd_mil.data.pairs.pair_data import PairedImages
from kd_mil.data.pairs.stack import ImageSource, PixelReader
from kd_mil.data.patches.built_bags import LabelledInstances
from kd_mil.data.patches.cifar10_mil import Cifar10MIL, read_torchvision
from kd_mil.data.patches.class_folders import find_part, read_class_folders


class Cifar10Paired(PairedImages):
    """CIFAR-10 at 32 pixels for the teacher and 16 or 8 for the student.

    Args:
        root: as in `Cifar10MIL`; None = looked for under `data_dir`.
        data_dir, cache_dir: folder of all data sets, and of decoded archives.
        max_train_images: take this many of the training images, the same number of each class; they are divided into
            train, val and auxiliary.
        max_test_images: likewise.
        **pairs: arguments of `PairedImages`.
    """

    def __init__(
        self,
        root: str | None,
        data_dir: str,
        cache_dir: str,
        max_train_images: int | None = None,
        max_test_images: int | None = None,
        **pairs: Any,
    ) -> None:
        super().__init__(**pairs)
        self.root, self.data_dir, self.cache_dir = root, data_dir, cache_dir
        self.limits = {"train": max_train_images, "test": max_test_images}

    def read(self) -> ImageSource:
        root = find_root(self.root, self.data_dir, Cifar10MIL.folders, Cifar10MIL.source)
        chosen = {
            part: first_of_each(self._read_part(root, part), limit, f"data.max_{part}_images")
            for part, limit in self.limits.items()
        }
        pixels = torch.cat([images.instances for images in chosen.values()])  # type: ignore[misc]
        return ImageSource(
            ids=[f"{part}{index}" for part, images in chosen.items() for index in range(len(images.labels))],
            labels=torch.cat([images.labels for images in chosen.values()]),
            class_names=chosen["train"].class_names,
            open=PixelReader(pixels.numpy()),
            parts=[part for part, images in chosen.items() for _ in images.labels],
        )

    def _read_part(self, root: Path, part: str) -> LabelledInstances:
        outer = root.parent if root.name == "cifar-10-batches-py" else root
        if (outer / "cifar-10-batches-py").is_dir():
            return read_torchvision(outer, train=part == "train")
        source = find_part(root, part)
        if source is None:
            raise UserError(f"{root} holds no {part} folder or archive: unpack {Cifar10MIL.source} there")
        found = read_class_folders(source, image_size=None, cache_dir=self.cache_dir, max_gib=4.0)
        if isinstance(found.instances, torch.Tensor):
            return found
        return LabelledInstances(found.instances.read(), found.labels, found.class_names)


def first_of_each(images: LabelledInstances, limit: int | None, setting: str) -> LabelledInstances:
    """The first images of each class, `limit` in all.

    Raises:
        UserError: a limit that the classes do not divide, or too few images; names the `setting`.
    """
    if limit is None:
        return images
    each, rest = divmod(limit, len(images.class_names))
    positions = [(images.labels == label).nonzero().flatten()[:each] for label in range(len(images.class_names))]
    if rest or each < 1 or min(map(len, positions)) < each:
        most = len(positions) * int(images.labels.bincount(minlength=len(positions)).min())
        raise UserError(f"{setting}={limit}: must be a multiple of the {len(positions)} classes, at most {most}")
    return images.select(torch.cat(positions))
