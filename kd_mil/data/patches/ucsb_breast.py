"""UCSB breast cancer images as bags of patches."""

import re
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from sklearn.model_selection import StratifiedGroupKFold
from torch import Tensor
from tqdm import tqdm

from kd_mil.core.checks import at_least
from kd_mil.core.errors import UserError
from kd_mil.data.bags import Bags, BagSplits
from kd_mil.data.datamodules import BagDataModule, Loading
from kd_mil.data.locations import find_root
from kd_mil.data.patches.image_files import IMAGE_SUFFIXES, decode_image
from kd_mil.data.patches.patch_cutting import cut_patches, grid_patches
from kd_mil.data.patches.stain_normalisation import StainNormalisation, normalise_stain
from kd_mil.data.splits import stratified_folds
from kd_mil.slides.formats.label_masks import read_mask

NAME = re.compile(r"(ytma\d+_\d+)_(benign|malignant)\d+_ccd")
SOURCE = (
    "the UCSB breast cancer cell set (E. Drelie Gelasca et al., ICIP 2008, Center for Bio-Image Informatics, "
    "University of California, Santa Barbara), images named ytmaN_DATE_benignM_ccd and ytmaN_DATE_malignantM_ccd,"
)


class UcsbBreast(BagDataModule):
    """58 images of breast tissue, 896x768 pixels: 32 benign, 26 malignant. A bag is an image, cut by a grid.

    Patches that are almost white are dropped. Instances are (3, patch_size, patch_size) uint8, from left to right and
    top to bottom. The paper's labels of single patches were never published; without `masks` no patch has a label, and
    no score of instances is defined.

    Set: Gelasca et al. 2008. As bags: Kandemir et al. 2014, Ilse et al. 2018, Thiagarajan et al. 2019.

    Args:
        root: folder of the images; None = looked for under `data_dir`.
        data_dir: folder of all data sets.
        loading: as in `BagDataModule`.
        fold: which of the folds is tested.
        num_folds: 5 give about 70/10/20 images to train, val and test.
        val_fraction: share of all images held out for validation.
        group_by: `array` keeps images of one tissue micro-array in one part, `image` deals every image by itself.
        patch_size: edge of a patch in pixels.
        white_level: a pixel is white if all of its channels are above this.
        white_share: patches with this share of white pixels, or more, are dropped.
        stain_normalisation: `none`, or `reinhard`: every image is brought to the same mean colours and contrasts, once
            its white patches are known.
        masks: folder of images of the same names (any suffix), not 0 where a malignant nucleus is: a patch of a
            malignant image is positive if it touches one.
        split_file: CSV `bag_id,split` that replaces the folds.
        seed: of the folds.

    Raises:
        UserError: an unknown `group_by` or normalisation, or a patch size below 1.
    """

    image_paths: dict[str, Path]
    """Image file of each bag id, once loaded."""

    def __init__(
        self,
        root: str | None,
        data_dir: str,
        loading: Loading,
        fold: int = 0,
        num_folds: int = 5,
        val_fraction: float = 0.1,
        group_by: Literal["array", "image"] = "array",
        patch_size: int = 32,
        white_level: int = 200,
        white_share: float = 0.75,
        stain_normalisation: StainNormalisation = "none",
        masks: str | None = None,
        split_file: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(loading, split_file, seed)
        at_least("data.patch_size", patch_size, 1)
        self.root, self.data_dir, self.masks = root, data_dir, masks
        self.fold, self.num_folds, self.val_fraction, self.group_by = fold, num_folds, val_fraction, group_by
        self.patch_size, self.white_level, self.white_share = patch_size, white_level, white_share
        self.stain_normalisation = stain_normalisation

    def load(self) -> BagSplits:
        """Read all images, drop white patches, and deal the images to the folds."""
        root = find_root(self.root, self.data_dir, ("ucsb-breast", "ucsb_breast"), SOURCE)
        self.image_paths = find_images(root)
        arrays, kinds = zip(*(_name_of(path).groups() for path in self.image_paths.values()), strict=True)
        labels = torch.tensor([int(kind == "malignant") for kind in kinds])
        patches, corners, instance_labels = [], [], []
        images = zip(self.image_paths.items(), labels.tolist(), strict=True)
        for (name, path), label in tqdm(images, desc="ucsb breast", total=len(labels), disable=None, leave=False):
            image = decode_image(str(path), str(path))
            own_patches, own_corners = self._tissue(image, name)
            patches.append(own_patches)
            corners.append(own_corners)
            instance_labels.append(self._instance_labels(name, image.shape[1:], own_corners, label))
        bags = Bags(
            instances=torch.from_numpy(np.concatenate(patches)),
            sizes=torch.tensor([len(own) for own in corners]),
            labels=labels,
            bag_ids=list(self.image_paths),
            instance_labels=torch.from_numpy(np.concatenate(instance_labels)),
            coords=torch.from_numpy(np.concatenate(corners)),
            case_ids=list(arrays) if self.group_by == "array" else None,
            class_names=("benign", "malignant"),
        )
        settings = self.fold, self.num_folds, self.val_fraction, self.seed
        if bags.case_ids is None:
            return BagSplits(bags, *stratified_folds(labels, None, *settings))
        return BagSplits(bags, *grouped_folds(labels, bags.case_ids, *settings))

    def _tissue(self, image: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Patches (n, 3, S, S) that are not almost white, and their top-left corners (n, 2)."""
        if min(image.shape[1:]) < self.patch_size:
            raise UserError(
                f"data.patch_size={self.patch_size} exceeds {name} of {image.shape[2]}x{image.shape[1]} pixels"
            )
        corners, _ = grid_patches(image.shape[1:], np.empty((0, 2)), self.patch_size)
        patches = cut_patches(image, corners, self.patch_size)
        white = (patches > self.white_level).all(axis=1).mean(axis=(1, 2))
        kept = white < self.white_share
        if not kept.any():
            raise UserError(f"{name}: all patches are white: raise data.white_level or data.white_share")
        normalised = normalise_stain(image, self.stain_normalisation)
        return cut_patches(normalised, corners[kept], self.patch_size), corners[kept]

    def _instance_labels(self, name: str, shape: tuple[int, int], corners: np.ndarray, label: int) -> np.ndarray:
        """Labels (n,) int64 of the patches of an image of `shape` (H, W), -1 where there are no masks."""
        if self.masks is None:
            return np.full(len(corners), -1, dtype=np.int64)
        if label == 0:
            return np.zeros(len(corners), dtype=np.int64)
        path = next(iter(sorted(Path(self.masks).glob(f"{name}.*"))), None)
        if path is None:
            raise UserError(f"data.masks={self.masks} holds no mask {name}.*: every malignant image needs one")
        mask = read_mask(path).positive[None]
        if mask.shape[1:] != shape:
            raise UserError(
                f"{path}: a mask of {mask.shape[2]}x{mask.shape[1]} pixels for an image of {shape[1]}x{shape[0]}"
            )
        return (cut_patches(mask, corners, self.patch_size).max(axis=(1, 2, 3)) > 0).astype(np.int64)


def find_images(root: Path) -> dict[str, Path]:
    """Images of the set by name, sorted.

    Raises:
        UserError: there are none.
    """
    found = [path for path in root.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES] if root.is_dir() else []
    images = {path.stem: path for path in sorted(found) if NAME.fullmatch(path.stem)}
    if not images:
        raise UserError(f"{root} holds no images ytma*_ccd: set data.root to the folder of {SOURCE}")
    return images


def _name_of(path: Path) -> re.Match[str]:
    match = NAME.fullmatch(path.stem)
    assert match is not None
    return match


def grouped_folds(
    labels: Tensor, groups: list[str], fold: int, num_folds: int, val_fraction: float, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Train, val and test positions of one fold; groups hold bags of both labels and stay whole.

    Args:
        labels: (B,) int64.
        groups: group of each bag.
        fold: which fold is tested, in [0, num_folds).
        num_folds: at least 2, at most the number of groups.
        val_fraction: share of all bags for validation, met as nearly as whole groups with both labels allow.
        seed: of the folds.

    Raises:
        UserError: a fold that does not exist, or groups that leave a part without one of the labels.
    """
    if not 0 <= fold < num_folds:
        raise UserError(f"fold={fold}: must be one of 0..{num_folds - 1}")
    test = _folds(labels.numpy(), np.asarray(groups), num_folds, seed)[fold]
    rest = np.setdiff1d(np.arange(len(labels)), test)
    own_labels, own_groups = labels.numpy()[rest], np.asarray(groups)[rest]
    pieces = int(np.clip(round(len(rest) / max(val_fraction * len(labels), 1)), 2, len(np.unique(own_groups))))
    held = [part for part in _folds(own_labels, own_groups, pieces, seed) if len(np.unique(own_labels[part])) > 1]
    if not held:
        raise UserError(f"no groups of both labels for validation at val_fraction={val_fraction}: give a split_file")
    val = rest[held[0]]
    return torch.from_numpy(np.setdiff1d(rest, val)), torch.from_numpy(val), torch.from_numpy(test)


def _folds(labels: np.ndarray, groups: np.ndarray, count: int, seed: int) -> list[np.ndarray]:
    available = len(np.unique(groups))
    if not 2 <= count <= available:
        raise UserError(f"{count} folds of {available} groups: must be at least 2 and at most the number of groups")
    try:
        folds = list(StratifiedGroupKFold(count, shuffle=True, random_state=seed).split(labels, labels, groups))
    except ValueError as error:
        raise UserError(f"{count} folds of these groups: {error}") from error
    return [np.sort(part) for _, part in folds]
