"""Pyramidal, tiled, JPEG-compressed TIFF, written from strips of rows: level 0 never lies in memory as a whole."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from tifffile import TiffWriter

from kd_mil.core.atomic import atomic_path
from kd_mil.core.errors import UserError

CLASSIC_BYTES = 2**32 - 2**25
"""Above this many bytes of pixels the file is a BigTIFF."""


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
        mpp: µm per pixel of level 0.
        tile_size: edge of a stored tile in pixels, a multiple of 16 and of `factor`.
        factor: downsample from level to level; levels are added until one fits into 2 x 2 tiles.
        quality: JPEG quality, 1 to 95; chroma is subsampled 4:2:0.

    Raises:
        UserError: rows missing or left over.
    """
    width, height = size
    big = width * height * 3 > CLASSIC_BYTES
    with atomic_path(path) as temporary, TiffWriter(temporary, bigtiff=big) as file:
        rows = tile_rows(strips, tile_size, height, path)
        while True:
            reduced: list[np.ndarray] = []
            pixels_per_cm = (round(1e7 / mpp), 1000)
            file.write(
                tiles(rows, tile_size, factor, reduced),
                shape=(height, width, 3),
                dtype=np.uint8,
                tile=(tile_size, tile_size),
                photometric="rgb",  # what it is given; JPEG stores YCbCr
                compression="jpeg",
                compressionargs={"level": quality},
                subsampling=(2, 2),
                resolution=(pixels_per_cm, pixels_per_cm),
                resolutionunit="CENTIMETER",
                subfiletype=int((width, height) != size),
                metadata=None,
                software=False,
            )
            for _ in rows:  # refuses rows left over
                pass
            if max(width, height) <= 2 * tile_size:
                return
            width, height, mpp = -(-width // factor), -(-height // factor), mpp * factor
            rows = tile_rows(reduced, tile_size, height, path)


def tile_rows(strips: Iterable[np.ndarray], tile_size: int, height: int, path: Path) -> Iterator[np.ndarray]:
    """Regroup strips to rows of tiles (tile_size, width, 3), the last as high as is left.

    Raises:
        UserError: the strips do not have `height` rows in all.
    """
    pending: list[np.ndarray] = []
    given = 0
    for strip in strips:
        pending.append(strip)
        given += len(strip)
        while sum(map(len, pending)) >= tile_size:
            block = np.concatenate(pending)
            pending = [block[tile_size:]]
            yield block[:tile_size]
    if given != height:
        raise UserError(f"{path}: {given} rows were given for a slide of {height}")
    if rest := [rows for rows in pending if len(rows)]:
        yield np.concatenate(rest)


def tiles(rows: Iterable[np.ndarray], tile_size: int, factor: int, reduced: list[np.ndarray]) -> Iterator[np.ndarray]:
    """Tiles (tile_size, tile_size, 3) of rows of tiles, edges repeated; the rows go to `reduced` at 1 / factor."""
    for row in rows:
        reduced.append(np.asarray(Image.fromarray(row).reduce(factor)))
        height, width, _ = row.shape
        padded = np.pad(row, ((0, tile_size - height), (0, -width % tile_size), (0, 0)), mode="edge")
        yield from (padded[:, left : left + tile_size] for left in range(0, width, tile_size))
