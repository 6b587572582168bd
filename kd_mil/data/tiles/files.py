"""Tiles that stay in slides or in cached files until a batch asks for them."""

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from kd_mil.core.readable import readable
from kd_mil.data.tiles.cache import REMEDY, CutSlide, TileCache, read_tile
from kd_mil.slides.formats.reader import Slide
from kd_mil.slides.tiles.cutting import Cutting

OPEN_BYTES = 1 << 30
"""Memory of the slides that a process keeps open; at least the last one stays so."""


class TileFiles:
    """Lazy instances (N, 3, S, S) uint8 of many slides, read slide by slide and row by row, whatever the order asked.

    Args:
        cuts: the slides; a tile's position counts through them.
    """

    def __init__(self, cuts: Sequence[CutSlide]) -> None:
        self.cuts = list(cuts)
        self.ends = np.cumsum([len(cut.tiles.coords) for cut in self.cuts])
        size = self.cuts[0].tiles.tile_size
        self.shape: tuple[int, ...] = (int(self.ends[-1]), 3, size, size)
        self.dtype = torch.uint8

    @property
    def nbytes(self) -> int:
        """Bytes of all pixels."""
        return int(np.prod(self.shape))

    def __getitem__(self, positions: Tensor) -> Tensor:
        wanted = positions.numpy()
        order = wanted.argsort(kind="stable")
        slides = np.searchsorted(self.ends, wanted[order], side="right")
        pixels = np.empty((len(wanted), *self.shape[1:]), dtype=np.uint8)
        for slide in np.unique(slides).tolist():
            rows = order[slides == slide]
            start = self.ends[slide] - len(self.cuts[slide].tiles.coords)
            pixels[rows] = self._read(slide, wanted[rows] - start)
        return torch.from_numpy(pixels)

    def read(self) -> Tensor:
        """All tiles in memory."""
        pixels = torch.empty(self.shape, dtype=self.dtype)
        starts = np.concatenate([[0], self.ends[:-1]])
        for slide, start in enumerate(tqdm(starts, desc="tiles", unit="slide", disable=None, leave=False)):
            positions = torch.arange(start, self.ends[slide])
            pixels[start : self.ends[slide]] = self[positions]
        return pixels

    def _read(self, slide: int, rows: np.ndarray) -> np.ndarray:
        """Pixels (M, 3, S, S) of the given tiles (M,), ascending, of one slide."""
        raise NotImplementedError


class TilesInSlides(TileFiles):
    """Tiles decoded from the slide files at every access; worker processes open files of their own.

    Args:
        cuts: as in `TileFiles`.
        cutting: how slides are opened.
    """

    def __init__(self, cuts: Sequence[CutSlide], cutting: Cutting) -> None:
        super().__init__(cuts)
        self.cutting = cutting
        self._slides: OrderedDict[int, Slide] = OrderedDict()

    def _read(self, slide: int, rows: np.ndarray) -> np.ndarray:
        opened, tiles = self._open(slide), self.cuts[slide].tiles
        return np.stack([read_tile(opened, tiles, coord) for coord in tiles.coords[rows]])

    def _open(self, slide: int) -> Slide:
        if slide not in self._slides:
            self._slides[slide] = self.cutting.open(self.cuts[slide].entry)
        self._slides.move_to_end(slide)
        while len(self._slides) > 1 and sum(one.resident_bytes for one in self._slides.values()) > OPEN_BYTES:
            self._slides.popitem(last=False)[1].close()
        return self._slides[slide]


class TilesInCache(TileFiles):
    """Tiles read from the files of a `TileCache`.

    Args:
        cuts: as in `TileFiles`.
        cache: which holds their pixels.
    """

    def __init__(self, cuts: Sequence[CutSlide], cache: TileCache) -> None:
        super().__init__(cuts)
        self.paths = [cache.pixels_path(cut.entry) for cut in self.cuts]

    def _read(self, slide: int, rows: np.ndarray) -> np.ndarray:
        with readable(self.paths[slide], REMEDY):
            return np.load(self.paths[slide], mmap_mode="r", allow_pickle=False)[rows]
