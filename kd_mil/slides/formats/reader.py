"""Slides behind one small protocol: pixels by level-0 position and target resolution, whatever the file format."""

import pkgutil
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import openslide

from kd_mil.core.checks import one_of
from kd_mil.core.errors import UserError
from kd_mil.slides.formats.image_decoding import IMAGE_SUFFIXES
from kd_mil.slides.formats.image_slide import ImageSlide
from kd_mil.slides.formats.ome_tiff import OmeTiffSlide, is_ome_tiff
from kd_mil.slides.formats.openslide_slide import OpenSlideSlide
from kd_mil.slides.formats.pyramid import PyramidSlide

BACKENDS = ("openslide", "fastslide")


class Slide(Protocol):
    """A slide file. Positions are level-0 pixels from the top-left corner; resolutions are µm per pixel.

    Slides travel to data-loader workers: pickling and forking are safe, each process opens its own handle at its first
    read.
    """

    path: Path
    level_dimensions: tuple[tuple[int, int], ...]
    """(width, height) of each level, finest first."""
    level_downsamples: tuple[float, ...]
    """Level-0 pixels per pixel of each level; starts with 1."""
    mpp: float
    """µm per level-0 pixel: the override if one was given, else what the file says, else the default."""
    states_mpp: bool
    """Whether the file says what its pixels measure, as µm per pixel or as a magnification."""
    magnification: float | None
    """Objective power as the file states it; None where it does not. Not corrected by `mpp`."""
    bounds: tuple[int, int, int, int]
    """(x, y, width, height) of the scanned area in level-0 pixels; the whole slide for most formats."""
    properties: dict[str, str]
    """The file's own metadata."""

    @property
    def name(self) -> str:
        """File name without its last extension."""
        ...

    @property
    def dimensions(self) -> tuple[int, int]:
        """(width, height) of level 0."""
        ...

    @property
    def resident_bytes(self) -> int:
        """Memory that an open slide takes in a process: a decoded image, or a reader's cache."""
        ...

    def read(self, x: int, y: int, size: tuple[int, int], mpp: float) -> np.ndarray:
        """Read uint8 RGB (height, width, 3), read-only, at `mpp`, with its top-left corner at level-0 (x, y).

        The nearest level at or finer than `mpp` is read and resampled once. A level within 1 % of `mpp` is taken as it
        is: the pixels are then the reader's own. Outside the slide, and where it is transparent, pixels are white.

        Args:
            x: Level-0 column; may lie outside the slide.
            y: Level-0 row; may lie outside the slide.
            size: (width, height) in pixels of the result.
            mpp: Resolution of the result; finer than level 0 is interpolated.

        Raises:
            UserError: the file cannot be decoded there.
        """
        ...

    def thumbnail(self, max_side: int) -> np.ndarray:
        """Picture of `bounds`, uint8 RGB (height, width, 3), longer side at most `max_side` pixels."""
        ...

    def close(self) -> None:
        """Give this process's file handle back; a later read opens the file again."""
        ...


def open_slide(
    path: str | Path,
    mpp: float | None = None,
    backend: str = "openslide",
    mpp_setting: str | None = "mpp",
    default_mpp: float | None = None,
) -> Slide:
    """Open a slide file.

    Args:
        path: Anything OpenSlide reads, OME-TIFF with its pyramid, or a PNG, JPEG or TIFF image (a slide of one level; a
            TIFF's first page).
        mpp: µm per level-0 pixel; overrides the file's. Without it and the file's own, 10 / objective power is taken
            (0.5 µm at 20x, 0.25 µm at 40x).
        backend: `openslide`, `fastslide` (an optional package: faster, pixels not quite the same; see `fast_slide`), or
            the dotted path of a `PyramidSlide` of your own, as in `my_package.MySlide`.
        mpp_setting: The setting that says what slides measure, for messages; None where the command has none.
        default_mpp: µm per level-0 pixel where neither `mpp` nor the file says it.

    Raises:
        UserError: no such file, an empty, damaged or foreign file, no resolution to be had, or an unknown backend.
    """
    path = Path(path)
    _check_file(path)
    reader = reader_class(backend)
    if reader is OpenSlideSlide and path.suffix.lower() in IMAGE_SUFFIXES:
        reader = _image_reader(path)
    return reader(path, mpp, mpp_setting, default_mpp)


def _image_reader(path: Path) -> type[PyramidSlide]:
    """The reader of a TIFF, PNG or JPEG: OpenSlide does not know the pyramids of OME-TIFF, and no plain images."""
    vendor = openslide.OpenSlide.detect_format(path)
    if vendor in (None, "generic-tiff") and is_ome_tiff(path):
        return OmeTiffSlide
    return ImageSlide if vendor is None else OpenSlideSlide


def reader_class(backend: str) -> type[PyramidSlide]:
    """The class that reads slides for a backend: one of `BACKENDS`, or a dotted path.

    Raises:
        UserError: neither, or a path that leads to no `PyramidSlide`.
    """
    if backend == "openslide":
        return OpenSlideSlide
    if backend == "fastslide":
        from kd_mil.slides.formats.fast_slide import FastSlideSlide  # needs an optional package

        return FastSlideSlide
    if "." not in backend:
        one_of("backend", backend, BACKENDS)
    try:
        found: Any = pkgutil.resolve_name(backend)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"backend={backend}: cannot be imported ({error})") from error
    if not (isinstance(found, type) and issubclass(found, PyramidSlide)):
        raise UserError(f"backend={backend}: is no subclass of {PyramidSlide.__module__}.PyramidSlide")
    return found


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise UserError(
            f"slide {str(path)!r} {'is a folder' if path.is_dir() else 'does not exist'}: give a slide file"
        )
    if path.suffix.lower() == ".mrxs" and not path.with_suffix("").is_dir():
        raise UserError(
            f"slide {str(path)!r} is the index of a slide alone: copy the folder {path.stem!r} with its .dat files, too"
        )
    if path.stat().st_size == 0:
        raise UserError(f"slide {str(path)!r} is empty (0 bytes): copy or export it again")
