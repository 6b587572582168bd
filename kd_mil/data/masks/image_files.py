"""Images and their masks in folders: the base of every data set that has them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from kd_mil.core.errors import UserError
from kd_mil.data.bags import Bags, BagSplits
from kd_mil.data.batches import UNKNOWN
from kd_mil.data.datamodules import Loading
from kd_mil.data.masks.mask_data import ImageSize, SegmentationData, image_size_of, negative_masks
from kd_mil.data.patches.image_files import decode_image
from kd_mil.data.split_columns import Folds, choose_parts
from kd_mil.data.splits import Parts
from kd_mil.slides.formats.label_masks import read_mask


@dataclass(frozen=True)
class ImageEntry:
    """One image of a set."""

    image_id: str
    path: Path
    label: int
    """0 or 1; an image with label 0 holds no positive pixel."""
    mask_path: Path | None = None
    """Mask of a positive image; None where nobody has drawn one."""
    case_id: str | None = None
    """Patient; None = the image is a case of its own."""
    split: str | None = None
    """`train`, `val` or `test`; None = by folds."""
    fold: int | None = None
    """The fold in which the image is tested, from 0 on; None = folds are drawn."""


class ImageFileData(SegmentationData):
    """Sets whose images and masks are files: a data set says which (`entries`).

    Args:
        loading: as in `SegmentationData`.
        image_size: side, or (height, width), in pixels to which images and masks are brought; the whole image is
            shrunk, its shape is not kept.
        mask_values: values that are positive in a mask; empty = as `label_masks.positive_pixels` tells.
        unknown_values: values of mask pixels that nobody has judged, such as 255 beside 0 and 1; they count nowhere.
        fold, num_folds: the test fold, where no split is given; folds are dealt over cases.
        val_fraction: share of all cases held out for validation, where the split names no `val`.
        **data: crop, split_file, seed of `SegmentationData`.
    """

    def __init__(
        self,
        loading: Loading,
        image_size: ImageSize = 256,
        mask_values: Sequence[int] = (),
        unknown_values: Sequence[int] = (),
        fold: int = 0,
        num_folds: int = 5,
        val_fraction: float = 0.1,
        **data: object,
    ) -> None:
        super().__init__(loading, **data)  # type: ignore[arg-type]
        self.image_size = image_size_of("data.image_size", image_size)
        self.mask_values, self.unknown_values = tuple(mask_values), tuple(unknown_values)
        self.fold, self.num_folds, self.val_fraction = fold, num_folds, val_fraction
        self._entries: list[ImageEntry] = []

    @property
    def instance_source(self) -> dict[str, Any]:
        """That whole images were brought to one size."""
        return {"kind": "images", "image_size": list(self.image_size)}

    def entries(self) -> list[ImageEntry]:
        """The images of the set. The one method a data set must write."""
        raise NotImplementedError(f"{type(self).__name__} does not list its images")

    def load(self) -> BagSplits:
        """Read the images at the size asked for."""
        self._entries = entries = self.entries()
        images = np.empty((len(entries), 3, *self.image_size), dtype=np.uint8)
        for row, entry in enumerate(tqdm(entries, desc="images", unit="image", disable=None, leave=False)):
            images[row] = decode_image(str(entry.path), str(entry.path), self.image_size)
        cases = [entry.case_id or entry.image_id for entry in entries]
        bags = Bags(
            instances=torch.from_numpy(images),
            sizes=torch.ones(len(entries), dtype=torch.long),
            labels=torch.tensor([entry.label for entry in entries]),
            bag_ids=[entry.image_id for entry in entries],
            case_ids=cases,
        )
        return BagSplits(bags, *self._parts(bags))

    def _parts(self, bags: Bags) -> Parts:
        splits = [entry.split for entry in self._entries]
        fold = None if any(splits) else self.fold
        how = Folds(fold, self.num_folds, self.val_fraction, self.seed)
        return choose_parts(bags, splits, [entry.fold for entry in self._entries], how)

    def read_masks(self, positions: Tensor) -> Tensor:
        chosen = [self._entries[position] for position in positions.tolist()]
        masks = negative_masks(len(chosen), self.image_size)
        for row, entry in enumerate(tqdm(chosen, desc="masks", unit="mask", disable=None, leave=False)):
            if entry.label and entry.mask_path is None:
                masks[row] = UNKNOWN
            elif entry.label:
                assert entry.mask_path is not None
                mask = resized_mask(entry.mask_path, self.image_size, self.mask_values, self.unknown_values)
                masks[row] = torch.from_numpy(mask)
        return masks


def existing(path: Path, where: str) -> Path:
    """The path, if it is a file; else a `UserError` that says where it was named."""
    if not path.is_file():
        raise UserError(f"{where}: {path} does not exist")
    return path


def resized_mask(
    path: Path, size: tuple[int, int], positive: Sequence[int] = (), unknown: Sequence[int] = ()
) -> np.ndarray:
    """A mask (H, W) uint8 of 0, 1 and `UNKNOWN` brought to (height, width).

    A pixel is unknown if more than half of its area is, else positive if half of what is known of it is.

    Args:
        path: of the file.
        size: of the result.
        positive, unknown: values in the file, see `label_masks.read_mask`.

    Raises:
        UserError: see `label_masks.read_mask`.
    """
    chosen, _, unsaid = read_mask(path, positive, "data.mask_values", unknown)
    if not unsaid.any():
        return (area_shares(chosen, size) > 127).astype(np.uint8)
    known = 255 - area_shares(unsaid, size).astype(int)
    mask = (2 * area_shares(chosen, size).astype(int) >= np.maximum(known, 1)).astype(np.uint8)
    return np.where(known < 128, UNKNOWN, mask).astype(np.uint8)


def area_shares(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Share of each pixel of (height, width) that is set in `pixels` (h, w) bool, as uint8 of 0 to 255."""
    image = Image.fromarray(pixels.astype(np.uint8) * 255)
    if image.size != size[::-1]:
        image = image.resize(size[::-1], Image.Resampling.BOX)
    return np.asarray(image)
