"""Tiles of many slides in batches, read by worker processes."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from kd_mil.core.errors import UserError, one_line
from kd_mil.slides.extraction.planning import PlannedSlide
from kd_mil.slides.formats.reader import Slide, open_slide

PREFETCHED = 2
BUFFERS = PREFETCHED + 2
"""Batches of a worker: requested ahead, in use, and one to spare."""


class TileRequest(NamedTuple):
    """Consecutive tiles of one slide, as sent to a worker."""

    slide_id: str
    path: Path
    slide_mpp: float
    """µm per level-0 pixel."""
    first: int
    """Position of the first of them among the slide's tiles."""
    coords: np.ndarray
    """(M, 2) level-0 pixels."""
    tile_size: int
    mpp: float


class TileBatch(NamedTuple):
    """The tiles of a request, as they come from a worker; valid until the next batch is asked for."""

    slide_id: str
    first: int
    pixels: Tensor
    """(M, H, W, 3) uint8."""
    error: str
    """Why the slide could not be read, `pixels` mean nothing then; empty where it could."""


class TileReader(Dataset):
    """Reads requests; each process opens its own slides, when it needs them, and keeps the last one open."""

    def __init__(self, backend: str = "openslide") -> None:
        self.backend = backend
        self._slide: Slide | None = None
        self._buffers: deque[Tensor] = deque(maxlen=BUFFERS)

    def __getitem__(self, request: TileRequest) -> TileBatch:
        pixels, error = self._empty(len(request.coords), request.tile_size), ""
        try:
            self._read(request, pixels.numpy())
        except Exception as caught:  # whatever a reader raises, the slide is left out and the others are read
            error = one_line(caught)
        return TileBatch(request.slide_id, request.first, pixels, error)

    def _empty(self, count: int, side: int) -> Tensor:
        """(count, side, side, 3) uint8 to fill; in a worker, shared memory used in turn.

        New pages of shared memory cost several times more than the copy of a batch into it.
        """
        if get_worker_info() is None:
            return torch.empty((count, side, side, 3), dtype=torch.uint8)
        buffer = self._buffers.popleft() if len(self._buffers) == BUFFERS else torch.empty(0)
        if buffer.shape[1:] != (side, side, 3) or len(buffer) < count:
            buffer = torch.empty((count, side, side, 3), dtype=torch.uint8).share_memory_()
        self._buffers.append(buffer)
        return buffer[:count]

    def _read(self, request: TileRequest, out: np.ndarray) -> None:
        slide = self._opened(request)
        size = (request.tile_size, request.tile_size)
        for tile, (x, y) in zip(out, request.coords.tolist(), strict=True):
            tile[:] = slide.read(x, y, size, request.mpp)

    def _opened(self, request: TileRequest) -> Slide:
        slide = self._slide
        if slide is not None and (slide.path, slide.mpp) == (request.path, request.slide_mpp):
            return slide
        if slide is not None:
            slide.close()
        self._slide = None  # so that a slide that cannot be opened leaves none behind
        self._slide = open_slide(request.path, request.slide_mpp, self.backend)
        return self._slide


def requests_of(
    slides: Iterable[PlannedSlide], batch_size: int, wanted: Callable[[str], bool]
) -> Iterator[TileRequest]:
    """Batches of `batch_size` tiles; a slide is left as soon as it is not `wanted` any more.

    No batch holds tiles of two slides: networks round the same tile differently beside others, and so a slide has the
    same features whatever was extracted before it.
    """
    for slide in slides:
        entry, tiles, path = slide.entry, slide.tiles, slide.copy or slide.entry.path
        for first in range(0, len(tiles.coords), batch_size):
            if not wanted(entry.slide_id):
                break
            coords = tiles.coords[first : first + batch_size]
            yield TileRequest(entry.slide_id, path, tiles.slide_mpp, first, coords, tiles.tile_size, tiles.mpp)


def tile_loader(
    requests: Iterator[TileRequest], backend: str, num_workers: int, pin_memory: bool
) -> Iterator[TileBatch]:
    """Read the requests in order; with workers, the next ones are requested while a batch is worked on.

    Raises:
        UserError: a worker was killed.
    """
    loader = DataLoader(
        TileReader(backend),
        sampler=_Once(requests),
        batch_size=None,
        num_workers=num_workers,
        prefetch_factor=PREFETCHED if num_workers else None,
        pin_memory=pin_memory,
        collate_fn=_as_it_is,  # type: ignore[arg-type]
    )
    try:
        yield from loader
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise UserError(
            "a process that reads tiles was killed: is the memory full? Lower num_workers; the same command resumes"
        ) from error


class _Once:
    """A sampler that passes on an iterator, so that requests are planned while others are read."""

    def __init__(self, iterator: Iterator[Any]) -> None:
        self.iterator = iterator

    def __iter__(self) -> Iterator[Any]:
        return self.iterator


def _as_it_is(batch: TileBatch) -> TileBatch:
    return batch
