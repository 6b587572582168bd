"""Streaming writer of pyramidal, tiled, JPEG-compressed TIFF: the slide never lies in memory as a whole.

A TIFF lists where its tiles are, in any order. So one pass over the rows of the slide writes every level at once:
each finished row of tiles goes to the file and, shrunk, to the level above. Pillow compresses the tiles.

Why not tifffile, which scikit-image brings along: without imagecodecs (80 MB installed) it writes no JPEG, not even
tiles that are compressed already; and it writes level after level, so all but the first would be kept until then.
"""

import os
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path
from struct import pack
from typing import BinaryIO

import numpy as np
from PIL import Image

from kd_mil.core.atomic import atomic_path
from kd_mil.core.errors import UserError

MAX_BYTES = 2**32 - 1
SHORT, LONG, RATIONAL = (3, "<u2"), (4, "<u4"), (5, "<u4")


class Level:
    """One level of the pyramid: gathers rows, writes them as tiles, hands them on at 1 / `factor` of the size."""

    def __init__(
        self, file: BinaryIO, width: int, height: int, mpp: float, tile_size: int, factor: int, quality: int
    ) -> None:
        self.file, self.width, self.height, self.mpp = file, width, height, mpp
        self.tile_size, self.factor, self.quality = tile_size, factor, quality
        self.pending = np.empty((0, width, 3), np.uint8)
        self.rows_done = 0
        self.offsets: list[int] = []
        self.byte_counts: list[int] = []
        self.above: Level | None = None
        if max(width, height) > 2 * tile_size:
            smaller = -(-width // factor), -(-height // factor)
            self.above = Level(file, *smaller, mpp * factor, tile_size, factor, quality)

    def add(self, rows: np.ndarray) -> None:
        """Take the next rows (h, width, 3) uint8 from the top down."""
        self.pending = np.concatenate([self.pending, rows])
        while len(self.pending) >= min(self.tile_size, self.height - self.rows_done) > 0:
            tile_row, self.pending = self.pending[: self.tile_size], self.pending[self.tile_size :]
            self.rows_done += len(tile_row)
            self._write(tile_row)
            if self.above is not None:
                self.above.add(np.asarray(Image.fromarray(tile_row).reduce(self.factor)))

    def _write(self, tile_row: np.ndarray) -> None:
        padding = (self.tile_size - len(tile_row), -self.width % self.tile_size)
        padded = np.pad(tile_row, ((0, padding[0]), (0, padding[1]), (0, 0)), mode="edge")
        for left in range(0, self.width, self.tile_size):
            encoded = BytesIO()
            tile = Image.fromarray(padded[:, left : left + self.tile_size])
            tile.save(encoded, "JPEG", quality=self.quality, subsampling="4:2:0")
            self.offsets.append(self.file.tell())
            self.byte_counts.append(self.file.write(encoded.getbuffer()))

    def __iter__(self) -> Iterator["Level"]:
        """This level and those above it, finest first."""
        yield self
        if self.above is not None:
            yield from self.above

    def directory(self, is_reduced: bool) -> list[tuple[int, tuple[int, str], list[int]]]:
        """TIFF tags of the level as (number, type, values), in ascending order."""
        pixels_per_cm = [round(1e7 / self.mpp), 1000]
        return [
            (254, LONG, [int(is_reduced)]),
            (256, LONG, [self.width]),
            (257, LONG, [self.height]),
            (258, SHORT, [8, 8, 8]),
            (259, SHORT, [7]),  # JPEG
            (262, SHORT, [6]),  # YCbCr
            (277, SHORT, [3]),
            (282, RATIONAL, pixels_per_cm),
            (283, RATIONAL, pixels_per_cm),
            (284, SHORT, [1]),
            (296, SHORT, [3]),  # resolution per centimetre
            (322, LONG, [self.tile_size]),
            (323, LONG, [self.tile_size]),
            (324, LONG, self.offsets),
            (325, LONG, self.byte_counts),
            (530, SHORT, [2, 2]),
        ]


def write_pyramid(
    path: Path,
    strips: Iterable[np.ndarray],
    size: tuple[int, int],
    mpp: float,
    *,
    tile_size: int = 256,
    factor: int = 2,
    quality: int = 85,
) -> None:
    """Write strips of rows as a slide that OpenSlide opens as `generic-tiff`, with its resolution in the file.

    Args:
        path: the file; it appears only once it is complete.
        strips: (h, width, 3) uint8 each, any heights, from the top down, `height` rows in all.
        size: (width, height) of level 0 in pixels.
        mpp: micrometres per pixel of level 0.
        tile_size: edge of a stored tile in pixels, a multiple of 16 and of `factor`.
        factor: downsample from level to level; levels are added until one fits into 2 x 2 tiles.
        quality: JPEG quality, 1 to 95; chroma is subsampled 4:2:0.

    Raises:
        UserError: rows missing or left over, or a file over 4 GiB (plain TIFF cannot hold more).
    """
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(pack("<2sHI", b"II", 42, 0))
        base = Level(file, *size, mpp, tile_size, factor, quality)
        for strip in strips:
            base.add(strip)
            if file.tell() > MAX_BYTES:
                raise UserError(f"{path}: a slide over 4 GiB; make it smaller or lower the JPEG quality")
        given = base.rows_done + len(base.pending)
        if given != base.height:
            raise UserError(f"{path}: {given} rows were given for a slide of {base.height}")
        _write_directories(file, base)


def _write_directories(file: BinaryIO, base: Level) -> None:
    pointer = 4
    for number, level in enumerate(base):
        file.seek(0, os.SEEK_END)
        start = file.tell() + file.tell() % 2
        file.seek(pointer)
        file.write(pack("<I", start))
        file.seek(start)
        pointer = _write_directory(file, level.directory(is_reduced=number > 0))


def _write_directory(file: BinaryIO, directory: list[tuple[int, tuple[int, str], list[int]]]) -> int:
    """Write one directory here and what does not fit into it behind it; returns where the link to the next belongs."""
    link = file.tell() + 2 + 12 * len(directory)
    entries, values_behind = b"", b""
    for tag, (kind, dtype), values in directory:
        data = np.array(values, dtype).tobytes()
        count = len(values) // 2 if kind == RATIONAL[0] else len(values)
        if len(data) <= 4:
            entries += pack("<HHI4s", tag, kind, count, data)
        else:
            entries += pack("<HHII", tag, kind, count, link + 4 + len(values_behind))
            values_behind += data
    file.write(pack("<H", len(directory)) + entries + pack("<I", 0) + values_behind)
    return link
