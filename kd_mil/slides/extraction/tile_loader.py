"""Tiles of many slides in batches of equal size, read by worker processes."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from kd_mil.core.errors import UserError
from kd_mil.slides.extraction.planning import PlannedSlide
from kd_mil.slides.formats.reader import Slide, open_slide
from kd_mil.slides.tiles.cutting import Cutting

PREFETCHED = 2
BUFFERS = PREFETCHED + 2
"""Batches of a worker: requested ahead, in use, and one to spare."""


class TileRequest(NamedTuple):
    """Consecutive tiles of one slide, as sent to a worker."""

    slide_id: str
    path: Path
    mpp_override: float | None
    first: int
    """Position of the first of them among the slide's tiles."""
    coords: np.ndarray
    """(M, 2) level-0 pixels."""
    tile_size: int
    mpp: float


class Piece(NamedTuple):
    """Where consecutive tiles of a batch belong."""

    slide_id: str
    first: int
    length: int


class TileBatch(NamedTuple):
    """Tiles of one slide or of several, as they come from a worker; valid until the next batch is asked for."""

    pixels: Tensor
    """(M, H, W, 3) uint8, the tiles of `pieces` end to end."""
    pieces: list[Piece]
    errors: dict[str, str]
    """Slides that could not be read, and why; their tiles are not in the batch."""


class TileReader(Dataset):
    """Reads requests; each process opens its own slides, when it needs them, and keeps the last one open."""

    def __init__(self, backend: str = "openslide") -> None:
        self.backend = backend
        self._slide: Slide | None = None
        self._buffers: deque[Tensor] = deque(maxlen=BUFFERS)

    def __getitem__(self, requests: list[TileRequest]) -> TileBatch:
        batch = self._empty(sum(len(request.coords) for request in requests), requests[0].tile_size)
        pixels = batch.numpy()
        pieces, errors, filled = [], {}, 0
        for request in requests:
            count = len(request.coords)
            try:
                self._read(request, pixels[filled : filled + count])
            except UserError as error:
                errors[request.slide_id] = str(error)
                continue
            pieces.append(Piece(request.slide_id, request.first, count))
            filled += count
        return TileBatch(batch[:filled], pieces, errors)

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
        if self._slide is None or self._slide.path != request.path:
            if self._slide is not None:
                self._slide.close()
            self._slide = None  # so that a slide that cannot be opened leaves none behind
            self._slide = open_slide(request.path, request.mpp_override, self.backend)
        return self._slide


def requests_of(
    slides: Iterable[PlannedSlide], cutting: Cutting, batch_size: int, wanted: Callable[[str], bool]
) -> Iterator[list[TileRequest]]:
    """Batches of `batch_size` tiles, filled across slides; a slide is left as soon as it is not `wanted` any more."""
    batch: list[TileRequest] = []
    room = batch_size
    for slide in slides:
        entry, tiles = slide.entry, slide.tiles
        first = 0
        while first < len(tiles.coords) and wanted(entry.slide_id):
            coords = tiles.coords[first : first + room]
            origin = (entry.slide_id, entry.path, cutting.mpp_of(entry))
            batch.append(TileRequest(*origin, first, coords, tiles.tile_size, tiles.mpp))
            first, room = first + len(coords), room - len(coords)
            if room == 0:
                yield batch
                batch, room = [], batch_size
    if batch:
        yield batch


def tile_loader(
    requests: Iterator[list[TileRequest]], backend: str, num_workers: int, pin_memory: bool
) -> Iterator[TileBatch]:
    """Read the requests in order; with workers, the next ones are requested while a batch is worked on."""
    return iter(
        DataLoader(
            TileReader(backend),
            sampler=_Once(requests),
            batch_size=None,
            num_workers=num_workers,
            prefetch_factor=PREFETCHED if num_workers else None,
            pin_memory=pin_memory,
            collate_fn=_as_it_is,  # type: ignore[arg-type]
        )
    )


class _Once:
    """A sampler that passes on an iterator, so that requests are planned while others are read."""

    def __init__(self, iterator: Iterator[Any]) -> None:
        self.iterator = iterator

    def __iter__(self) -> Iterator[Any]:
        return self.iterator


def _as_it_is(batch: TileBatch) -> TileBatch:
    return batch
