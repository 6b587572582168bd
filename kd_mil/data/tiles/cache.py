"""Slides cut into tiles once: coordinates and tumour fractions kept in small files, pixels where asked for."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kd_mil.core.atomic import atomic_path
from kd_mil.core.errors import UserError
from kd_mil.core.hashing import digest, file_identity
from kd_mil.core.readable import readable
from kd_mil.slides.annotations.annotations import read_annotation, tumour_fraction
from kd_mil.slides.formats.reader import Slide
from kd_mil.slides.slide_list import SlideEntry
from kd_mil.slides.tiles.cutting import Cutting
from kd_mil.slides.tiles.tiling import Tiles

CACHE_VERSION = 2
"""Raised when tissue masks, grids or pixels come out differently: older files are then not taken for current ones."""

REMEDY = "remove it, it is made anew"
"""What to do about a damaged file of the cache."""


class CutSlide(NamedTuple):
    """A slide and its N tiles."""

    entry: SlideEntry
    tiles: Tiles
    tumour: np.ndarray | None
    """(N,) float32 tumour area fraction; None where the slide has no annotation."""


class TileCache:
    """Files named by slide, file identity (path, size, time of change) and settings: no other tiles are ever found.

    Files appear complete, so an interrupted pass resumes where it stopped, and several processes may share the folder.

    Args:
        folder: where the files go.
        cutting: how slides are cut.
    """

    def __init__(self, folder: Path, cutting: Cutting) -> None:
        self.folder, self.cutting = folder, cutting

    def cut(self, entry: SlideEntry) -> CutSlide:
        """Tiles of a slide, from the cache or from the slide.

        Raises:
            UserError: the slide or its annotation cannot be read.
        """
        stem = self._stem(entry)
        tiles = self._tiles(entry, stem)
        if entry.annotation_path is None:
            return CutSlide(entry, tiles, None)
        drawn = digest([file_identity(entry.annotation_path), asdict(self.cutting.annotations)])
        path = stem.with_name(f"{stem.name}-{drawn}.tumour.npy")
        if not path.exists():
            annotation = read_annotation(entry.annotation_path, self.cutting.open(entry), self.cutting.annotations)
            fractions = tumour_fraction(annotation, tiles.coords, tiles.tile_size_level0)
            with atomic_path(path) as temporary, temporary.open("wb") as file:
                np.save(file, fractions)
        with readable(path, REMEDY):
            return CutSlide(entry, tiles, np.load(path, allow_pickle=False))

    def pixels_path(self, entry: SlideEntry) -> Path:
        """Where the pixels (N, 3, S, S) uint8 of a slide's tiles are, once `keep_pixels` has written them."""
        stem = self._stem(entry)
        return stem.with_name(f"{stem.name}.pixels.npy")

    def keep_pixels(self, cut: CutSlide) -> None:
        """Read all tiles of a slide and write them to its file."""
        size = cut.tiles.tile_size
        with atomic_path(self.pixels_path(cut.entry)) as temporary:
            shape = (len(cut.tiles.coords), 3, size, size)
            pixels = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
            slide = self.cutting.open(cut.entry)
            for row, coord in enumerate(cut.tiles.coords):
                pixels[row] = read_tile(slide, cut.tiles, coord)
            slide.close()
            pixels.flush()

    def _stem(self, entry: SlideEntry) -> Path:
        """Path of the slide's files without their ends."""
        cutting = self.cutting
        facts = [CACHE_VERSION, file_identity(entry.path), *cutting.reading_of(entry)]
        return self.folder / f"{entry.slide_id}-{digest([*facts, asdict(cutting.tiling), asdict(cutting.tissue)])}"

    def _tiles(self, entry: SlideEntry, stem: Path) -> Tiles:
        path = stem.with_name(f"{stem.name}.tiles.npz")
        if not path.exists():
            slide = self.cutting.open(entry)
            tiles = self.cutting.cut(slide, entry)
            slide.close()
            save_tiles(path, tiles)
        return load_tiles(path)


def save_tiles(path: Path, tiles: Tiles) -> None:
    """Write the tiles of a slide, arrays and numbers."""
    facts = {name: value for name, value in asdict(tiles).items() if name not in ("coords", "tissue")}
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, coords=tiles.coords, tissue=tiles.tissue, facts=np.array(json.dumps(facts)))


def load_tiles(path: Path) -> Tiles:
    """Read what `save_tiles` wrote; UserError where it is damaged."""
    with readable(path, REMEDY), np.load(path, allow_pickle=False) as file:
        facts = json.loads(str(file["facts"]))
        facts |= {name: tuple(facts[name]) for name in ("slide_dimensions", "bounds_offset", "doubts")}
        return Tiles(coords=file["coords"], tissue=file["tissue"], **facts)


def read_tile(slide: Slide, tiles: Tiles, coord: np.ndarray) -> np.ndarray:
    """Pixels (3, S, S) uint8 of the tile at `coord` (2,)."""
    x, y = coord.tolist()
    return slide.read(x, y, (tiles.tile_size, tiles.tile_size), tiles.mpp).transpose(2, 0, 1)


def require_space(folder: Path, needed: int) -> None:
    """Refuse to begin what the disk cannot hold.

    Raises:
        UserError: `needed` bytes are more than the free ones.
    """
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"the tiles need {needed / 1e9:.1f} GB in {str(folder)!r}, which has {free / 1e9:.1f} GB: "
            "set paths.cache_dir=FOLDER, or data.cache=false to read them from the slides"
        )
