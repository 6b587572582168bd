"""Tiles of outlined slides with tile labels, and masks cut from the outlines: what IFKD trains on and is judged by."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import shapely
import torch
from torch import Tensor
from tqdm import tqdm

from kd_mil.core.atomic import write_arrays
from kd_mil.core.checks import at_least, share
from kd_mil.core.hashing import digest, file_digest, file_identity
from kd_mil.core.readable import readable
from kd_mil.data.bags import Bags, BagSplits
from kd_mil.data.batches import UNKNOWN
from kd_mil.data.datamodules import Loading
from kd_mil.data.masks.mask_data import SegmentationData
from kd_mil.data.splits import Parts, hold_out, positions_of_parts
from kd_mil.slides.annotations.annotations import Annotation, PolygonAnnotation, read_annotation, tumour_fraction
from kd_mil.slides.formats.reader import Slide, open_slide
from kd_mil.slides.slide_list import SlideEntry
from kd_mil.slides.tiles.tiling import Tiles, TilingSettings, tile_grid
from kd_mil.slides.tiles.tissue import find_tissue


class TileLocation(NamedTuple):
    """Where a tile was cut."""

    slide: int
    """Position among the slides."""
    x: int
    y: int
    side: int
    """Of the tile, like x and y in level-0 pixels."""


class OutlinedTiles(SegmentationData):
    """Tiles of slides whose tumour is outlined: a data set says which slides (`entries`).

    A tile is positive if tumour covers at least `min_tumour` of it, negative if none does; tiles between are left out.
    So tile labels do come from the outlines: "weak" means one label per tile. Tiles of one slide stay together, in the
    part that the slide names; where no slide names `val`, some of the `train` slides become it.

    Args:
        loading: as in `SegmentationData`.
        cache_dir: keeps the tiles read.
        mpp: µm per pixel of the tiles.
        tile_size: side in pixels; a tile is the image, `data.crop` cuts windows of it.
        positive_per_slide, negative_per_slide: most tiles of each class from a slide, drawn by `seed` and slide.
        min_tumour: area fraction in (0, 1].
        val_fraction: share of the training slides held out for validation, where none is named.
        **data: crop, split_file, seed of `SegmentationData`.

    Raises:
        UserError: a share or a number of tiles out of range.
    """

    def __init__(
        self,
        loading: Loading,
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
        share("data.min_tumour", min_tumour, zero=False)
        at_least("data.positive_per_slide", positive_per_slide, 1)
        at_least("data.negative_per_slide", negative_per_slide, 1)
        self.cache_dir = Path(cache_dir)
        self.tiling = TilingSettings(tile_size=tile_size, mpp=mpp, min_tissue=0.5)
        self.most_per_class = (negative_per_slide, positive_per_slide)
        self.min_tumour, self.val_fraction = min_tumour, val_fraction
        self._slides: list[SlideEntry] = []
        self._locations: list[TileLocation] = []
        """Of each tile."""

    def entries(self) -> list[SlideEntry]:
        """Slides with `split` and, where they hold tumour, outlines. The one method a data set must write."""
        raise NotImplementedError(f"{type(self).__name__} does not list its slides")

    @property
    def instance_source(self) -> dict[str, Any]:
        """Resolution and size of the tiles."""
        return {"kind": "images", "mpp": self.tiling.mpp, "tile_size": self.tiling.tile_size}

    def load(self) -> BagSplits:
        """Cut the tiles, or read those cut before."""
        self._slides = self.entries()
        progress = tqdm(self._slides, desc="slides", unit="slide", disable=None, leave=False)
        cut = [self._tiles(entry) for entry in progress]
        self._locations = [
            TileLocation(index, *row) for index, tiles in enumerate(cut) for row in tiles["locations"].tolist()
        ]
        owners = [self._slides[location.slide] for location in self._locations]
        bags = Bags(
            instances=torch.from_numpy(np.concatenate([tiles["images"] for tiles in cut])),
            sizes=torch.ones(len(owners), dtype=torch.long),
            labels=torch.from_numpy(np.concatenate([tiles["labels"] for tiles in cut])),
            bag_ids=[
                f"{owner.slide_id}_{location.x}_{location.y}"
                for owner, location in zip(owners, self._locations, strict=True)
            ],
            case_ids=[owner.case_id for owner in owners],
        )
        return BagSplits(bags, *self._parts(bags, [owner.split for owner in owners]))

    def _parts(self, bags: Bags, splits: Sequence[str | None]) -> Parts:
        """The parts that the slides of the tiles name."""
        train, val, test = positions_of_parts(splits)
        if len(val) == 0:
            train, val = hold_out(bags.labels, bags.case_ids, train, self.val_fraction, self.seed)
        return train, val, test

    def _tiles(self, entry: SlideEntry) -> dict[str, np.ndarray]:
        """Arrays `images` (N, 3, S, S), `labels` (N,) and `locations` (N, 3) as (x, y, side) of a slide, cut once."""
        settings = [asdict(self.tiling), self.most_per_class, self.seed, entry.mpp]
        key = digest([*file_identity(entry.path), *settings, *self.label_facts(entry)])
        cached = self.cache_dir / "outlined_tiles" / f"{key}.npz"
        if not cached.exists():
            write_arrays(cached, self._cut(entry))
        with readable(cached, "remove it, it is made anew"), np.load(cached, allow_pickle=False) as arrays:
            return dict(arrays)

    def _cut(self, entry: SlideEntry) -> dict[str, np.ndarray]:
        """Draw tiles of both classes from a slide and read them."""
        slide = opened_slide(entry)
        tiles = tile_grid(slide, find_tissue(slide), self.tiling)
        chosen = self._draw(entry, self.labelled(entry, slide, tiles))
        coords = tiles.coords[np.concatenate(chosen)]
        size = (tiles.tile_size, tiles.tile_size)
        images = np.empty((len(coords), 3, *size), dtype=np.uint8)
        for row, (x, y) in enumerate(coords.tolist()):
            images[row] = slide.read(x, y, size, tiles.mpp).transpose(2, 0, 1)
        slide.close()
        sides = np.full((len(coords), 1), tiles.tile_size_level0)
        labels = np.repeat([0, 1], [len(of_class) for of_class in chosen])
        return {"images": images, "labels": labels, "locations": np.concatenate([coords, sides], 1)}

    def label_facts(self, entry: SlideEntry) -> list[Any]:
        """Plain values that change when the labels of a slide's tiles do."""
        path = entry.annotation_path
        return [None if path is None else file_digest(path), self.min_tumour]

    def labelled(self, entry: SlideEntry, slide: Slide, tiles: Tiles) -> tuple[np.ndarray, np.ndarray]:
        """Which of the N tiles of a slide are negative and which are positive, each (N,) bool; the rest is left out."""
        tumour = tumour_of_tiles(entry, slide, tiles)
        return tumour == 0, tumour >= self.min_tumour

    def _draw(self, entry: SlideEntry, labelled: tuple[np.ndarray, np.ndarray]) -> list[np.ndarray]:
        """Positions of the negative and of the positive tiles to take."""
        digest = hashlib.sha256(f"{self.seed}/{entry.slide_id}".encode()).digest()
        generator = np.random.default_rng(int.from_bytes(digest[:8], "big"))
        classes = zip(labelled, self.most_per_class, strict=True)
        return [np.sort(generator.permutation(of_class.nonzero()[0])[:most]) for of_class, most in classes]

    def read_masks(self, positions: Tensor) -> Tensor:
        size = self.tiling.tile_size
        masks = torch.zeros(len(positions), size, size, dtype=torch.uint8)
        opened: dict[int, Annotation] = {}
        for row, position in enumerate(tqdm(positions.tolist(), desc="masks", unit="mask", disable=None, leave=False)):
            location = self._locations[position]
            entry = self._slides[location.slide]
            if self.is_empty(entry, int(self.bags.labels[position])):
                continue
            if entry.annotation_path is None:
                masks[row] = UNKNOWN
                continue
            if location.slide not in opened:  # tiles of a slide follow each other
                opened = {location.slide: read_annotation(entry.annotation_path, opened_slide(entry))}
            annotation = opened[location.slide]
            masks[row] = torch.from_numpy(tile_mask(annotation, (location.x, location.y), location.side, size))
        return masks

    def is_empty(self, entry: SlideEntry, label: int) -> bool:
        """Whether a tile of that label is known to hold no tumour, without a look at the outlines."""
        return label == 0


def opened_slide(entry: SlideEntry) -> Slide:
    """The slide of a list, with what the list says it measures."""
    return open_slide(entry.path, entry.mpp, mpp_setting=None)


def tumour_of_tiles(entry: SlideEntry, slide: Slide, tiles: Tiles) -> np.ndarray:
    """Tumour area fraction (N,) of each tile."""
    if entry.annotation_path is None:
        return np.zeros(len(tiles.coords), dtype=np.float32)
    annotation = read_annotation(entry.annotation_path, slide)
    return tumour_fraction(annotation, tiles.coords, tiles.tile_size_level0)


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
    rows, columns = (np.floor(axis / annotation.downsample).astype(int) for axis in (y, x))
    height, width = annotation.mask.shape
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    return (annotation.mask[rows.clip(0, height - 1), columns.clip(0, width - 1)] & inside).astype(np.uint8)
