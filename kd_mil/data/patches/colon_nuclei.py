"""ColonNuclei: bags of patches of colorectal adenocarcinoma, of which it is known whether nuclei are epithelial."""

from pathlib import Path
from typing import Literal

import numpy as np
import scipy.io
import torch
from scipy.io.matlab import MatReadError
from scipy.spatial import KDTree
from tqdm import tqdm

from kd_mil.core.checks import at_least
from kd_mil.core.errors import UserError
from kd_mil.data.bags import Bags, BagSplits
from kd_mil.data.datamodules import BagDataModule, Loading
from kd_mil.data.locations import find_root
from kd_mil.data.patches.image_files import decode_image
from kd_mil.data.patches.patch_cutting import cut_patches, grid_patches, nucleus_corners
from kd_mil.data.patches.stain_normalisation import StainNormalisation, normalise_stain
from kd_mil.data.splits import stratified_folds

Patching = Literal["nuclei", "detections", "grid", "grid_nuclei"]
"""Which patches of an image are the instances of its bag."""
POSITIVE_TYPE = "epithelial"
NUCLEUS_TYPES = (POSITIVE_TYPE, "fibroblast", "inflammatory", "others")
SOURCE = (
    "CRCHistoPhenotypes_2016_04_28 (K. Sirinukunwattana et al., IEEE TMI 2016, Tissue Image Analytics Centre, "
    "University of Warwick), unpacked so that the folders img1 to img100 lie in it,"
)


class ColonNuclei(BagDataModule):
    """CRCHistoPhenotypes as multiple-instance set: a bag is an image of 500x500 pixels at 20x (0.55 µm per pixel).

    A bag is positive if the image has at least one epithelial nucleus: 51 of 100 are. Instances are (3, patch_size,
    patch_size) uint8, from left to right and top to bottom, so that their order tells nothing about their class. The
    images are of 9 patients, but which is whose was never published: every image counts as a case.

    Set: Sirinukunwattana et al., IEEE TMI 2016. As bags: Ilse et al., ICML 2018; Thiagarajan et al. 2019.

    Args:
        root: folder that holds img1, img2, ...; None = looked for under `data_dir`.
        data_dir: folder of all data sets.
        loading: as in `BagDataModule`.
        fold: which of the folds is tested.
        num_folds: 5 give 70/10/20 images to train, val and test.
        val_fraction: share of all images held out for validation.
        patch_size: edge of a patch in pixels.
        patching: `nuclei`, one patch around each classified nucleus, 22,444 in all; `detections`, one around each
            marked nucleus, 29,756 in all, of which those without a class count as negative; `grid`, patches side by
            side from the top left corner, positive if they hold the centre of an epithelial nucleus; `grid_nuclei`,
            those of the grid that hold the centre of a marked nucleus. A nucleus in the strip that is left over at the
            right or lower edge is in no patch of a grid, though it counts for the bag; of an image without any other
            the nearest patch is taken (img76, at 27 pixels).
        context: edge in pixels of what is read around the centre of each patch and reduced to `patch_size`, so that a
            network of the same size sees more; None = the patch itself. Labels are those of the patch.
        stain_normalisation: `none`, or `reinhard`: every image is brought to the same mean colours and contrasts.
        split_file: CSV `bag_id,split` that replaces the folds.
        seed: of the folds and the visiting order.

    Raises:
        UserError: an unknown `patching` or normalisation, a patch size below 1, or a context below the patch size.
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
        patch_size: int = 27,
        patching: Patching = "nuclei",
        context: int | None = None,
        stain_normalisation: StainNormalisation = "none",
        split_file: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(loading, split_file, seed)
        at_least("data.patch_size", patch_size, 1)
        at_least("data.context", patch_size if context is None else context, patch_size)
        self.root, self.data_dir, self.stain_normalisation = root, data_dir, stain_normalisation
        self.fold, self.num_folds, self.val_fraction = fold, num_folds, val_fraction
        self.patch_size, self.patching, self.context = patch_size, patching, context

    def load(self) -> BagSplits:
        """Read all images and nuclei, and deal the images to the folds."""
        root = find_root(self.root, self.data_dir, ("crc-histo-phenotypes", "CRCHistoPhenotypes_2016_04_28"), SOURCE)
        self.image_paths = find_images(root)
        patches, corners, instance_labels, labels = [], [], [], []
        for path in tqdm(self.image_paths.values(), desc="colon nuclei", unit="image", disable=None, leave=False):
            image, (centres, is_positive) = decode_image(str(path), str(path)), read_nuclei(path)
            marked = read_centres(path.with_name(f"{path.stem}_detection.mat")) if self._needs_marked else centres
            own_corners, own_labels = self._places(image.shape[1:], centres, is_positive, marked)
            image = normalise_stain(image, self.stain_normalisation)
            patches.append(cut_patches(image, own_corners, self.patch_size, self.context))
            corners.append(own_corners)
            instance_labels.append(own_labels)
            labels.append(int(is_positive.any()))
        bags = Bags(
            instances=torch.from_numpy(np.concatenate(patches)),
            sizes=torch.tensor([len(own) for own in corners]),
            labels=torch.tensor(labels),
            bag_ids=list(self.image_paths),
            instance_labels=torch.from_numpy(np.concatenate(instance_labels)).long(),
            coords=torch.from_numpy(np.concatenate(corners)),
        )
        return BagSplits(
            bags, *stratified_folds(bags.labels, None, self.fold, self.num_folds, self.val_fraction, self.seed)
        )

    @property
    def _needs_marked(self) -> bool:
        return self.patching in ("detections", "grid_nuclei")

    def _places(
        self, shape: tuple[int, int], centres: np.ndarray, is_positive: np.ndarray, marked: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Top-left corners (n, 2) and labels (n,) of an image's patches, from its classified and its marked nuclei."""
        side = self.context or self.patch_size
        if min(shape) < side:
            name = "patch_size" if self.context is None else "context"
            raise UserError(f"data.{name}={side} exceeds an image of {shape[1]}x{shape[0]} pixels")
        if self.patching == "nuclei":
            return nucleus_corners(shape, centres, self.patch_size), is_positive
        if self.patching == "detections":
            return nucleus_corners(shape, marked, self.patch_size), nearest_to(centres[is_positive], marked)
        corners, labels = grid_patches(shape, centres[is_positive], self.patch_size)
        if self.patching == "grid":
            return corners, labels
        nuclei = np.concatenate([marked, centres])
        _, holds_nucleus = grid_patches(shape, nuclei, self.patch_size)
        if not holds_nucleus.any():
            holds_nucleus = nearest_to(nuclei, corners + self.patch_size / 2)
        return corners[holds_nucleus], labels[holds_nucleus]


def find_images(root: Path) -> dict[str, Path]:
    """Image files `imgN/imgN.png` (or `.bmp`) by name, in the order of their numbers.

    Raises:
        UserError: there are none.
    """
    found = [path for suffix in ("png", "bmp") for path in root.glob(f"img*/img*.{suffix}")]
    images = {path.stem: path for path in found if path.stem == path.parent.name and path.stem[3:].isdigit()}
    if not images:
        raise UserError(f"{root} holds no images imgN/imgN.png or .bmp: set data.root to the folder of {SOURCE}")
    return dict(sorted(images.items(), key=lambda item: int(item[0][3:])))


def read_nuclei(image_path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Centres (n, 2) float64 (x, y) in pixels counted from 0, row by row, and which are epithelial (n,) bool.

    The files count from 1 and store whatever type is smallest, often uint8, in which a subtraction wraps round.

    Raises:
        UserError: a missing or unreadable file beside the image.
    """
    centres = [
        read_centres(image_path.with_name(f"{image_path.stem}_{nucleus_type}.mat")) for nucleus_type in NUCLEUS_TYPES
    ]
    is_positive = np.repeat([name == POSITIVE_TYPE for name in NUCLEUS_TYPES], [len(own) for own in centres])
    together = np.concatenate(centres)
    order = np.lexsort(together.T)
    return together[order], is_positive[order]


def read_centres(path: Path) -> np.ndarray:
    """The array `detection` of one file: (n, 2) float64 (x, y), counted from 0."""
    try:
        detection = scipy.io.loadmat(path)["detection"]
    except (OSError, ValueError, TypeError, KeyError, NotImplementedError, MatReadError) as error:
        raise UserError(f"{path}: not a readable MATLAB file with an array 'detection' ({error})") from error
    return detection.astype(np.float64).reshape(-1, 2) - 1


def nearest_to(centres: np.ndarray, marked: np.ndarray) -> np.ndarray:
    """Which (m,) bool of the marked places (m, 2) are nearest to one of the centres (n, 2).

    Nearly all classified nuclei are marked at the same place, 82 of 22,444 beside it; each epithelial one, of which 13
    are 2 to 7 pixels beside it, has a mark of its own.
    """
    _, nearest = KDTree(marked).query(centres)
    return np.isin(np.arange(len(marked)), nearest)
