"""ColonTiles: tiles of CRCHistoPhenotypes, positive where they hold an epithelial nucleus; nuclei are what is known.

Set: see `kd_mil.data.patches.colon_nuclei`.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial import KDTree
from torch import Tensor
from tqdm import tqdm

from kd_mil.core.checks import above
from kd_mil.core.errors import UserError
from kd_mil.data.bags import Bags, BagSplits
from kd_mil.data.batches import UNKNOWN
from kd_mil.data.datamodules import Loading
from kd_mil.data.locations import find_root
from kd_mil.data.masks.mask_data import SegmentationData
from kd_mil.data.patches.colon_nuclei import SOURCE, find_images, read_nuclei
from kd_mil.data.patches.image_files import decode_image
from kd_mil.data.patches.patch_cutting import cut_patches
from kd_mil.data.splits import stratified_folds

MPP = 0.55
"""µm per pixel of the images."""


class ColonTiles(SegmentationData):
    """Real H&E tiles for segmentation from tile labels, 16 of 128 pixels from each of the 100 images of 500x500.

    A tile is positive if the centre of an epithelial nucleus lies in it. Its mask is known on discs around the
    classified nuclei whose centres lie in it: 1 around epithelial ones, 0 around others, of two discs that overlap the
    nearer; everything else is unknown and counts nowhere. So scores say whether epithelial nuclei are told from other
    nuclei, not how well gland outlines are met. Tiles cover the image, evenly spread: neighbours share some pixels, and
    all tiles of an image are in one part. Which images are of one patient was never published.

    Args:
        loading: as in `SegmentationData`.
        root: folder that holds img1, img2, ...; None = looked for under `data_dir`.
        data_dir: folder of all data sets.
        tile_size: side in pixels, at most that of an image.
        radius: of the discs in pixels.
        fold, num_folds, val_fraction: as in `ColonNuclei`.
        **data: crop, split_file, seed of `SegmentationData`.

    Raises:
        UserError: a radius that is not positive, or a tile size that does not fit into an image.
    """

    def __init__(
        self,
        loading: Loading,
        root: str | None,
        data_dir: str,
        tile_size: int = 128,
        radius: float = 6.0,
        fold: int = 0,
        num_folds: int = 5,
        val_fraction: float = 0.1,
        **data: Any,
    ) -> None:
        super().__init__(loading, **data)
        above("data.radius", radius)
        self.root, self.data_dir, self.tile_size, self.radius = root, data_dir, tile_size, radius
        self.fold, self.num_folds, self.val_fraction = fold, num_folds, val_fraction
        self._nuclei: list[tuple[np.ndarray, np.ndarray]] = []
        """Of each tile: centres (n, 2) as (x, y) in its pixels, and which are epithelial (n,) bool."""

    @property
    def instance_source(self) -> dict[str, Any]:
        """Resolution and size of the tiles."""
        return {"kind": "images", "mpp": MPP, "tile_size": self.tile_size}

    def load(self) -> BagSplits:
        """Read all images and nuclei, cut tiles, and deal the images to the folds."""
        root = find_root(self.root, self.data_dir, ("crc-histo-phenotypes", "CRCHistoPhenotypes_2016_04_28"), SOURCE)
        tiles, ids, cases = [], [], []
        for name, path in tqdm(find_images(root).items(), desc="colon tiles", unit="image", disable=None, leave=False):
            image = decode_image(str(path), str(path))
            corners = even_corners(image.shape[1:], self.tile_size, path)
            tiles.append(cut_patches(image, corners, self.tile_size))
            ids += [f"{name}_{x}_{y}" for x, y in corners.tolist()]
            cases += [name] * len(corners)
            centres, is_positive = read_nuclei(path)
            self._nuclei += [nuclei_within(centres, is_positive, corner, self.tile_size) for corner in corners]
        bags = Bags(
            instances=torch.from_numpy(np.concatenate(tiles)),
            sizes=torch.ones(len(ids), dtype=torch.long),
            labels=torch.tensor([int(is_positive.any()) for _, is_positive in self._nuclei]),
            bag_ids=ids,
            case_ids=cases,
        )
        return BagSplits(
            bags, *stratified_folds(bags.labels, cases, self.fold, self.num_folds, self.val_fraction, self.seed)
        )

    def read_masks(self, positions: Tensor) -> Tensor:
        nuclei = [self._nuclei[int(index)] for index in positions]
        masks = [nucleus_mask(centres, positive, self.tile_size, self.radius) for centres, positive in nuclei]
        return torch.from_numpy(np.stack(masks))


def even_corners(shape: tuple[int, ...], tile_size: int, path: Path) -> np.ndarray:
    """Top-left corners (n, 2) int64 (x, y) of the fewest tiles that cover an image (height, width), evenly spread.

    Raises:
        UserError: a tile larger than the image.
    """
    if min(shape) < tile_size or tile_size < 1:
        raise UserError(f"data.tile_size={tile_size} does not fit into {path} of {shape[1]}x{shape[0]} pixels")
    y, x = (np.linspace(0, side - tile_size, -(-side // tile_size)).round().astype(np.int64) for side in shape)
    return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)


def nuclei_within(
    centres: np.ndarray, is_positive: np.ndarray, corner: np.ndarray, tile_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Of nuclei at (n, 2) those in the tile at a corner (2,), in its pixels (x, y), and which of them are positive."""
    own = centres.clip(0) - corner  # some lie a fraction of a pixel outside the image
    inside = ((own > -0.5) & (own <= tile_size - 0.5)).all(axis=1)
    return own[inside], is_positive[inside]


def nucleus_mask(centres: np.ndarray, is_positive: np.ndarray, tile_size: int, radius: float) -> np.ndarray:
    """Mask (tile_size, tile_size) uint8 of discs around centres (n, 2): 1 around positive ones, 0 around others."""
    mask = np.full((tile_size, tile_size), UNKNOWN, dtype=np.uint8)
    if len(centres):
        y, x = np.mgrid[:tile_size, :tile_size]
        distance, nearest = KDTree(centres).query(np.stack([x, y], axis=-1))
        near = distance <= radius
        mask[near] = is_positive[nearest[near]]
    return mask
