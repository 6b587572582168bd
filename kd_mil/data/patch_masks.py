"""PatchMasks: your own images with image labels, from a CSV or folders; masks where there are some."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from kd_mil.data.bag import Bags, BagSplits
from kd_mil.data.datamodules import Loading
from kd_mil.data.image_batch import UNKNOWN
from kd_mil.data.image_files import IMAGE_SUFFIXES, decode_image
from kd_mil.data.segmentation_data import ImageSize, SegmentationData, image_size_of, negative_masks
from kd_mil.data.splits import PARTS, hold_out, stratified_folds
from kd_mil.data.tables import read_csv
from kd_mil.errors import UserError
from kd_mil.slides.image_slide import read_label_image

LABEL_WORDS = {"0": 0, "1": 1, "neg": 0, "pos": 1, "negative": 0, "positive": 1}


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


class ImageFileData(SegmentationData):
    """Sets whose images and masks are files: a data set says which (`entries`).

    Args:
        loading: as in `SegmentationData`.
        image_size: side, or (height, width), in pixels to which images and masks are brought; the whole image is
            shrunk, its shape is not kept.
        mask_values: values that are positive in a mask; empty = above 127 where 255 occurs, else above 0.
        fold, num_folds: the test fold, where no split is given; folds are dealt over cases.
        val_fraction: share of all cases held out for validation, where the split names no `val`.
        **data: crop, split_file, seed of `SegmentationData`.
    """

    def __init__(
        self,
        loading: Loading,
        image_size: ImageSize = 256,
        mask_values: Sequence[int] = (),
        fold: int = 0,
        num_folds: int = 5,
        val_fraction: float = 0.1,
        **data: object,
    ) -> None:
        super().__init__(loading, **data)  # type: ignore[arg-type]
        self.image_size = image_size_of("data.image_size", image_size)
        self.mask_values = tuple(mask_values)
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
        return BagSplits(bags, *self._parts(bags.labels, cases))

    def _parts(self, labels: Tensor, cases: list[str]) -> tuple[Tensor, Tensor, Tensor]:
        words = [entry.split for entry in self._entries]
        if not any(words):
            return stratified_folds(labels, cases, self.fold, self.num_folds, self.val_fraction, self.seed)
        missing = next((entry.image_id for entry in self._entries if entry.split is None), None)
        if missing is not None:
            raise UserError(f"image {missing!r} has no split, others have: give all or none")
        train, val, test = (torch.tensor([i for i, word in enumerate(words) if word == part]).long() for part in PARTS)
        if len(val) == 0:
            train, val = hold_out(labels, cases, train, self.val_fraction * len(labels) / max(len(train), 1), self.seed)
        return train, val, test

    def read_masks(self, positions: Tensor) -> Tensor:
        chosen = [self._entries[position] for position in positions.tolist()]
        masks = negative_masks(len(chosen), self.image_size)
        for row, entry in enumerate(tqdm(chosen, desc="masks", unit="mask", disable=None, leave=False)):
            if entry.label and entry.mask_path is None:
                masks[row] = UNKNOWN
            elif entry.label:
                assert entry.mask_path is not None
                masks[row] = torch.from_numpy(read_mask(entry.mask_path, self.image_size, self.mask_values))
        return masks


class PatchMasks(ImageFileData):
    """Your own images.

    From a CSV: `image_path,label` and, where there are some, `mask_path,case_id,split,image_id`; relative paths start
    at the CSV's folder; a label is 0, 1, neg, pos, negative or positive. From folders, as IFKD's released code has
    them: `root/{train,val,test}/{pos,neg}/NAME` with masks of positive images in `root/{train,val,test}/gt/NAME.*`.

    Folders know no patients: give the CSV where a patient has several images.

    Args:
        root: folder of the parts; None with a CSV.
        manifest: the CSV; None with folders.
        **images: settings of `ImageFileData`.

    Raises:
        UserError: both or neither of root and manifest.
    """

    def __init__(
        self, loading: Loading, root: str | None = None, manifest: str | None = None, **images: object
    ) -> None:
        super().__init__(loading, **images)  # type: ignore[arg-type]
        self.root, self.manifest = root, manifest

    def entries(self) -> list[ImageEntry]:
        if self.manifest is not None and self.root is None:
            return read_image_table(Path(self.manifest))
        if self.root is None or self.manifest is not None:
            raise UserError("data=patch_masks takes data.root=FOLDER or data.manifest=FILE.csv: give one of them")
        return list_parts(Path(self.root))


def read_image_table(path: Path) -> list[ImageEntry]:
    """The images of a CSV, as `PatchMasks` says.

    Raises:
        UserError: no such CSV, a missing file, an unknown label or split; with the line.
    """
    table = read_csv(path, ("image_path", "label"))
    entries = []
    for line, row in zip(table.index, table.to_dict("records"), strict=True):
        where = f"{path}, line {line}"
        cells = {name: str(value).strip() for name, value in row.items() if isinstance(value, str) and value.strip()}
        if cells.get("label", "").lower() not in LABEL_WORDS:
            raise UserError(f"{where}: label {cells.get('label')!r} is none of {', '.join(LABEL_WORDS)}")
        if cells.get("split", "train") not in PARTS:
            raise UserError(f"{where}: split {cells['split']!r} is none of {', '.join(PARTS)}")
        mask = cells.get("mask_path")
        image = existing(path.parent / cells.get("image_path", ""), where)
        entries.append(
            ImageEntry(
                image_id=cells.get("image_id", cells["image_path"]),
                path=image,
                label=LABEL_WORDS[cells["label"].lower()],
                mask_path=None if mask is None else existing(path.parent / mask, where),
                case_id=cells.get("case_id"),
                split=cells.get("split"),
            )
        )
    return entries


def list_parts(root: Path) -> list[ImageEntry]:
    """The images of `root/{train,val,test}/{pos,neg}`.

    Raises:
        UserError: no such folders, or no images in one.
    """
    entries = []
    for part in PARTS:
        if part == "val" and not (root / part).is_dir():
            continue
        masks = {path.stem: path for path in image_paths(root / part / "gt")}
        for folder, label in (("neg", 0), ("pos", 1)):
            images = image_paths(root / part / folder)
            if not images:
                raise UserError(f"no images in {root / part / folder}: {PatchMasks.__name__} needs pos and neg there")
            entries += [
                ImageEntry(f"{part}/{folder}/{image.stem}", image, label, masks.get(image.stem), split=part)
                for image in images
            ]
    return entries


def image_paths(folder: Path) -> list[Path]:
    """Image files of a folder, sorted; none where there is no folder."""
    found = folder.iterdir() if folder.is_dir() else []
    return sorted(path for path in found if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("."))


def existing(path: Path, where: str) -> Path:
    """The path, if it is a file; else a `UserError` that says where it was named."""
    if not path.is_file():
        raise UserError(f"{where}: {path} does not exist")
    return path


def read_mask(path: Path, size: tuple[int, int], positive: Sequence[int] = ()) -> np.ndarray:
    """A mask (H, W) uint8 in {0, 1} brought to (height, width): a pixel is positive if half of its area is.

    Raises:
        UserError: not a mask of one channel.
    """
    labels = read_label_image(path)
    least = 127 if labels.max(initial=0) > 127 else 0
    chosen = np.isin(labels, list(positive)) if positive else labels > least
    image = Image.fromarray(chosen.astype(np.uint8) * 255)
    if image.size != size[::-1]:
        image = image.resize(size[::-1], Image.Resampling.BOX)
    return (np.asarray(image) > 127).astype(np.uint8)
