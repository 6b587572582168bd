"""What all slide readers share: choice of level, one resampling, thumbnails, and one file handle per process."""

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from kd_mil.core.errors import UserError
from kd_mil.slides.formats.image_decoding import is_opaque, on_white

LEVEL_TOLERANCE = 0.01
"""A level whose resolution differs by less than this share from the target is read as it is."""
PLAUSIBLE_MPP = (0.01, 50.0)
"""µm per level-0 pixel; a TIFF that carries 72 dots per inch for want of better says 353."""
READER_BYTES = 32 * 1024**2
"""What a slide reader keeps of decoded tiles, per slide and process; OpenSlide's default."""
BLOCK_PIXELS = 4096**2
"""Native pixels decoded at once when a large area is reduced to a thumbnail."""


class SlideInfo(NamedTuple):
    """What a reader finds in a file; None where the file is silent."""

    level_dimensions: tuple[tuple[int, int], ...]
    level_downsamples: tuple[float, ...]
    mpp: tuple[float, float] | None
    magnification: float | None
    bounds: tuple[int, int, int, int]
    properties: dict[str, str]


class PyramidSlide(ABC):
    """Base of the readers, fulfilling `reader.Slide`: a subclass opens the file, describes it and reads one level."""

    def __init__(
        self,
        path: Path,
        mpp: float | None = None,
        mpp_setting: str | None = "mpp",
        default_mpp: float | None = None,
    ) -> None:
        self.path = path
        self._handles: dict[int, Any] = {}
        info = self._describe(self._handle())
        self.level_dimensions = info.level_dimensions
        self.level_downsamples = info.level_downsamples
        self.magnification = info.magnification
        self.bounds = info.bounds
        self.properties = info.properties
        self.states_mpp = info.mpp is not None or info.magnification is not None
        self.mpp = resolve_mpp(path, mpp, info.mpp, info.magnification, mpp_setting, default_mpp)

    @abstractmethod
    def _open(self) -> Any:
        """Open the file and return a handle with a `close()`; UserError where it cannot be read."""

    @abstractmethod
    def _describe(self, handle: Any) -> SlideInfo:
        """Geometry and metadata of the open file."""

    @abstractmethod
    def _read_level(self, handle: Any, level: int, x: int, y: int, size: tuple[int, int]) -> Image.Image:
        """Region of one level: level-0 origin, size in that level's pixels; white or transparent outside the slide."""

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def dimensions(self) -> tuple[int, int]:
        return self.level_dimensions[0]

    @property
    def resident_bytes(self) -> int:
        """See `reader.Slide.resident_bytes`."""
        return READER_BYTES

    def read(self, x: int, y: int, size: tuple[int, int], mpp: float) -> np.ndarray:
        """See `reader.Slide.read`."""
        level, downsample = level_and_downsample(self.level_downsamples, mpp / self.mpp)
        return self._read_extent(level, x, y, (size[0] * downsample, size[1] * downsample), size)

    def thumbnail(self, max_side: int) -> np.ndarray:
        """See `reader.Slide.thumbnail`."""
        x, y, width, height = self.bounds
        downsample = max(1.0, width / max_side, height / max_side)
        level, _ = level_and_downsample(self.level_downsamples, downsample)
        size = (max(1, round(width / downsample)), max(1, round(height / downsample)))
        return self._read_extent(level, x, y, (width, height), size)

    def close(self) -> None:
        """See `reader.Slide.close`."""
        handle = self._handles.pop(os.getpid(), None)
        if handle is not None:
            handle.close()

    def _handle(self) -> Any:
        # Keyed by process: a handle inherited through a fork shares its file position and locks with the parent.
        if os.getpid() not in self._handles:
            self._handles[os.getpid()] = self._open()
        return self._handles[os.getpid()]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handles": {}}

    def _read_extent(
        self, level: int, x: int, y: int, extent: tuple[float, float], size: tuple[int, int]
    ) -> np.ndarray:
        """Reduce `extent` (width, height in level-0 pixels) from (x, y) to `size` pixels, reading `level`."""
        downsample = self.level_downsamples[level]
        native = (extent[0] / downsample, extent[1] / downsample)
        if all(map(math.isclose, native, size)):
            return rgb_pixels(self._read_level(self._handle(), level, x, y, size))
        if native[0] * native[1] > BLOCK_PIXELS and min(size) > 1:
            return self._read_quarters(level, x, y, extent, size)
        # Readers interpolate between pixels of a level: start at a whole one, and let the one resampling do the rest.
        column, row = math.floor(x / downsample), math.floor(y / downsample)
        left, top = x / downsample - column, y / downsample - row
        box = (left, top, left + native[0], top + native[1])
        origin = (round(column * downsample), round(row * downsample))
        region = self._read_level(self._handle(), level, *origin, (math.ceil(box[2]), math.ceil(box[3])))
        reducing = native[0] >= size[0]
        resampling = Image.Resampling.HAMMING if reducing else Image.Resampling.BICUBIC
        return np.asarray(on_white(region).resize(size, resampling, box, reducing_gap=2.0 if reducing else None))

    def _read_quarters(
        self, level: int, x: int, y: int, extent: tuple[float, float], size: tuple[int, int]
    ) -> np.ndarray:
        """Read a large extent as four smaller ones, so that memory stays bounded on slides of a single level."""
        step = (extent[0] / size[0], extent[1] / size[1])
        columns, rows = (0, size[0] // 2, size[0]), (0, size[1] // 2, size[1])
        result = np.empty((size[1], size[0], 3), dtype=np.uint8)
        for top, bottom in pairwise(rows):
            for left, right in pairwise(columns):
                origin = (x + round(left * step[0]), y + round(top * step[1]))
                part = (right - left, bottom - top)
                result[top:bottom, left:right] = self._read_extent(
                    level, *origin, (part[0] * step[0], part[1] * step[1]), part
                )
        return result


def level_and_downsample(level_downsamples: tuple[float, ...], downsample: float) -> tuple[int, float]:
    """Coarsest level at or finer than `downsample`, and the downsample to read at.

    Both count level-0 pixels per pixel. The second is the level's own where the two agree within `LEVEL_TOLERANCE` (no
    resampling), else `downsample` itself. Finer than level 0 gives level 0.
    """
    finer = [index for index, native in enumerate(level_downsamples) if native <= downsample * (1 + LEVEL_TOLERANCE)]
    level = finer[-1] if finer else 0
    native = level_downsamples[level]
    return level, native if abs(native / downsample - 1) <= LEVEL_TOLERANCE else downsample


def resolve_mpp(
    path: Path,
    override: float | None,
    stated: tuple[float, float] | None,
    magnification: float | None,
    setting: str | None = "mpp",
    default: float | None = None,
) -> float:
    """Resolution in µm per level-0 pixel: the override, else the file's x and y averaged, 10 / magnification, default.

    Raises:
        UserError: none of the four, a value no scanner has, or x and y more than 5 % apart.
    """
    fix = f"give {f'`{setting}=` for the run, or ' if setting else ''}an `mpp` column in the slide list"
    overrule = fix.replace(f"`{setting}=`", f"`{setting}_override=`")
    if override is not None:
        mpp = override
    elif stated is not None:
        if abs(stated[0] / stated[1] - 1) > 0.05:
            sides = f"{stated[0]:g} x {stated[1]:g} µm"
            raise UserError(f"slide {str(path)!r} has pixels of {sides}, not square: {overrule}")
        mpp = sum(stated) / 2
    elif magnification is not None:
        mpp = 10 / magnification
    elif default is not None:
        mpp = default
    else:
        raise UserError(f"slide {str(path)!r} states neither µm per pixel nor magnification: {fix}, as in mpp=0.25")
    if not PLAUSIBLE_MPP[0] <= mpp <= PLAUSIBLE_MPP[1]:
        raise UserError(f"slide {str(path)!r}: {mpp:g} µm per pixel is no scanner's resolution: {overrule}, as in 0.25")
    return mpp


def rgb_pixels(image: Image.Image) -> np.ndarray:
    """Pixels (height, width, 3) uint8 over white; of opaque RGBA several times faster than a conversion by Pillow."""
    if image.mode == "RGBA" and is_opaque(image):
        return np.frombuffer(image.tobytes("raw", "RGB"), dtype=np.uint8).reshape(image.height, image.width, 3)
    return np.asarray(on_white(image))


def framed(
    corner: tuple[int, int],
    size: tuple[int, int],
    dimensions: tuple[int, int],
    read: Callable[[int, int, int, int], np.ndarray],
) -> Image.Image:
    """A region (width, height) of a level from its pixel `corner` on, white where it leaves the level.

    Args:
        corner: (x, y), may lie outside.
        size: of the region.
        dimensions: (width, height) of the level.
        read: gives pixels (height, width, 3 or 4) uint8 of an area (x, y, width, height) that lies inside.
    """
    left, top = max(corner[0], 0), max(corner[1], 0)
    inside = min(corner[0] + size[0], dimensions[0]) - left, min(corner[1] + size[1], dimensions[1]) - top
    region = Image.new("RGB", size, "white")
    if min(inside) > 0:
        pixels = Image.fromarray(read(left, top, *inside))
        region.paste(on_white(pixels), (left - corner[0], top - corner[1]))
    return region
