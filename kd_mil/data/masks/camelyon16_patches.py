"""Camelyon16Patches: labelled tiles of the slides of Camelyon16, and masks cut from their outlines."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import shapely
import torch
from torch import Tensor
from tqdm import tqdm

from kd_mil.core.atomic import write_arrays
from kd_mil.core.errors import UserError
from kd_mil.data.bags import Bags, BagSplits
from kd_mil.data.datamodules import Loading
from kd_mil.data.locations import find_root
from kd_mil.data.masks.mask_data import SegmentationData
from kd_mil.data.splits import hold_out
from kd_mil.data.tiles.camelyon16 import SOURCE, CamelyonSlide, find_slides
from kd_mil.slides.annotations.annotations import Annotation, PolygonAnnotation, read_annotation, tumour_fraction
from kd_mil.slides.formats.reader import open_slide
from kd_mil.slides.tiles.tiling import TilingSettings, tile_grid
from kd_mil.slides.tiles.tissue import find_tissue


class Camelyon16Patches(SegmentationData):
    """Tiles with tile labels, as IFKD trains on; masks of the same tiles for evaluation.

    A tile is positive if tumour covers at least `min_tumour` of it, negative if none does; tiles between are left out.
    So tile labels do come from the outlines, as in the paper: "weak" means one label per tile. Tiles of one slide stay
    together: `training` slides are divided into train and val, `testing` slides are tested.

    Args:
        root: holds `training/{normal,tumor}` and `testing/images`, with `.xml` outlines in any folder below the same
            part whose name ends in `annotations`; None = looked for under `data_dir`.
        data_dir: folder of all data sets.
        cache_dir: keeps the tiles read.
        mpp: um per pixel of the tiles.
        tile_size: side in pixels; a tile is the image, `data.crop` cuts windows of it.
        positive_per_slide, negative_per_slide: most tiles of each class from a slide, drawn by `seed` and slide.
        min_tumour: area fraction in (0, 1].
        val_fraction: share of the training slides held out for validation.
        **data: loading, crop, split_file, seed of `SegmentationData`.
    """

    def __init__(
        self,
        loading: Loading,
        root: str | None,
        data_dir: str,
        cache_dir: str,
        mpp: float = 1.0,
        tile_size: int = 256,
        positive_per_slide: int = 100,
        negative_per_slide: int = 50,
        min_tumour: float = 0.2,
        val_fraction: float = 0.2,
        **data: Any,
    ) -> None:
        super().__init__(loading, **data)
        if not 0 < min_tumour <= 1:
            raise UserError(f"data.min_tumour={min_tumour}: an area fraction, it must lie in (0, 1]")
        if min(positive_per_slide, negative_per_slide) < 1:
            raise UserError("data.positive_per_slide and data.negative_per_slide must be at least 1")
        self.root, self.data_dir, self.cache_dir = root, data_dir, cache_dir
        self.tiling = TilingSettings(tile_size=tile_size, mpp=mpp, min_tissue=0.5)
        self.wanted = (negative_per_slide, positive_per_slide)
        self.min_tumour, self.val_fraction = min_tumour, val_fraction
        self._slides: list[CamelyonSlide] = []
        self._tile_labels = np.empty(0, dtype=np.int64)
        self._places: list[list[int]] = []
        """Of each tile: number of the slide, x, y and side in level-0 pixels."""

    @property
    def instance_source(self) -> dict[str, Any]:
        """Resolution and size of the tiles."""
        return {"kind": "images", "mpp": self.tiling.mpp, "tile_size": self.tiling.tile_size}

    def load(self) -> BagSplits:
        """Cut the tiles, or read those cut before."""
        root = find_root(self.root, self.data_dir, ("camelyon16", "CAMELYON16", "Camelyon16"), SOURCE)
        self._slides = find_slides(root)
        pixels, labels, places, owner = [], [], [], []
        for number, slide in enumerate(tqdm(self._slides, desc="slides", unit="slide", disable=None, leave=False)):
            tiles = self._tiles(slide)
            pixels.append(tiles["images"])
            labels.append(tiles["labels"])
            places.append(tiles["places"])
            owner += [number] * len(tiles["labels"])
        self._tile_labels = np.concatenate(labels)
        rows = np.concatenate(places).tolist()
        self._places = [[number, *place] for number, place in zip(owner, rows, strict=True)]
        bags = Bags(
            instances=torch.from_numpy(np.concatenate(pixels)),
            sizes=torch.ones(len(owner), dtype=torch.long),
            labels=torch.from_numpy(self._tile_labels),
            bag_ids=[f"{self._slides[place[0]].path.stem}_{place[1]}_{place[2]}" for place in self._places],
            case_ids=[self._slides[number].path.stem for number in owner],
        )
        testing = torch.tensor([self._slides[number].part == "testing" for number in owner])
        rest = (~testing).nonzero().flatten()
        train, val = hold_out(bags.labels, bags.case_ids, rest, self.val_fraction, self.seed)
        return BagSplits(bags, train, val, testing.nonzero().flatten())

    def _tiles(self, slide: CamelyonSlide) -> dict[str, np.ndarray]:
        state = slide.path.stat()
        outlines = None if slide.annotation is None else hashlib.sha256(slide.annotation.read_bytes()).hexdigest()
        identity = [str(slide.path.resolve()), state.st_size, state.st_mtime_ns, outlines]
        settings = [asdict(self.tiling), self.wanted, self.min_tumour, self.seed]
        key = hashlib.sha256(json.dumps(identity + settings).encode()).hexdigest()[:24]
        cached = Path(self.cache_dir) / "camelyon_patches" / f"{key}.npz"
        if not cached.exists():
            write_arrays(cached, self._cut(slide))
        with np.load(cached, allow_pickle=False) as arrays:
            return dict(arrays)

    def _cut(self, entry: CamelyonSlide) -> dict[str, np.ndarray]:
        """Draw tiles of both classes from a slide and read them."""
        slide = open_slide(entry.path)
        tiles = tile_grid(slide, find_tissue(slide), self.tiling)
        fractions = np.zeros(len(tiles.coords), dtype=np.float32)
        if entry.annotation is not None:
            annotation = read_annotation(entry.annotation, slide)
            fractions = tumour_fraction(annotation, tiles.coords, tiles.tile_size_level0)
        digest = hashlib.sha256(f"{self.seed}/{entry.path.stem}".encode()).digest()
        generator = np.random.default_rng(int.from_bytes(digest[:8], "big"))
        chosen, labels = [], []
        for label, of_class in enumerate((fractions == 0, fractions >= self.min_tumour)):
            found = generator.permutation(of_class.nonzero()[0])[: self.wanted[label]]
            chosen.append(np.sort(found))
            labels.append(np.full(len(found), label))
        coords = tiles.coords[np.concatenate(chosen)]
        size = tiles.tile_size
        images = np.empty((len(coords), 3, size, size), dtype=np.uint8)
        for row, (x, y) in enumerate(coords.tolist()):
            images[row] = slide.read(x, y, (size, size), tiles.mpp).transpose(2, 0, 1)
        slide.close()
        sides = np.full((len(coords), 1), tiles.tile_size_level0)
        return {"images": images, "labels": np.concatenate(labels), "places": np.concatenate([coords, sides], 1)}

    def read_masks(self, positions: Tensor) -> Tensor:
        size = self.tiling.tile_size
        masks = torch.zeros(len(positions), size, size, dtype=torch.uint8)
        opened: dict[int, Annotation] = {}
        for row, position in enumerate(tqdm(positions.tolist(), desc="masks", unit="mask", disable=None, leave=False)):
            number, x, y, side = self._places[position]
            entry = self._slides[number]
            if self._tile_labels[position] and entry.annotation is not None:
                if number not in opened:
                    opened = {number: read_annotation(entry.annotation, open_slide(entry.path))}
                masks[row] = torch.from_numpy(tile_mask(opened[number], (x, y), side, size))
        return masks


def tile_mask(annotation: Annotation, corner: tuple[int, int], side: int, size: int) -> np.ndarray:
    """Mask (size, size) uint8 of a square tile: a pixel is positive if its centre lies in the tumour.

    Args:
        annotation: the slide's tumour.
        corner: (x, y) of the tile in level-0 pixels.
        side: of the tile in level-0 pixels.
        size: of the tile in its own pixels.
    """
    steps = (np.arange(size) + 0.5) * side / size
    x, y = np.meshgrid(corner[0] + steps, corner[1] + steps)
    if isinstance(annotation, PolygonAnnotation):
        box = shapely.box(*corner, corner[0] + side, corner[1] + side)
        near = annotation.polygons[shapely.intersects(annotation.polygons, box)]
        tumour = shapely.union_all(shapely.intersection(near, box))
        shapely.prepare(tumour)
        return shapely.contains_xy(tumour, x, y).astype(np.uint8)
    rows, columns = (np.floor(one / annotation.downsample).astype(int) for one in (y, x))
    height, width = annotation.mask.shape
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    return (annotation.mask[rows.clip(0, height - 1), columns.clip(0, width - 1)] & inside).astype(np.uint8)
