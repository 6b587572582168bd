"""Where the tiles of a slide lie on it, and what they are shown on without the slide."""

import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kd_mil.core.errors import UserError
from kd_mil.data.features.files.attributes import positive
from kd_mil.data.features.files.feature_file import FeatureFile
from kd_mil.data.features.files.positions import grid_step
from kd_mil.data.features.files.raw import RawFile
from kd_mil.slides.overlays.slide_picture import SlidePicture

BLANK = 245
"""Grey of a canvas where no slide is at hand, so that the extent shows on a white page."""


class TileGeometry(NamedTuple):
    """Positions and size of the N tiles, or other pieces, of a slide."""

    coords: np.ndarray
    """(N, 2) int64 (x, y) of the top-left corners in level-0 pixels."""
    tile_size_level0: int | np.ndarray
    """Side of all tiles; or (N, 2) int64 (width, height), of pieces that differ in size."""
    bounds_offset: tuple[int, int] | None = None
    """(x, y) of the scanned area in level-0 pixels; None where no slide says."""
    extent: tuple[int, int] | None = None
    """(width, height) of level 0, where known without the slide."""
    mpp: float | None = None
    """µm per level-0 pixel."""


def blank_picture(geometry: TileGeometry, side: int) -> SlidePicture:
    """A grey canvas of the slide's extent or, where that is unknown, of the tiles'."""
    width, height = geometry.extent or (geometry.coords.max(axis=0) + geometry.tile_size_level0).tolist()
    downsample = max(1.0, width / side, height / side)
    shape = (max(1, round(height / downsample)), max(1, round(width / downsample)), 3)
    return SlidePicture(np.full(shape, BLANK, np.uint8), downsample, (0, 0), None)


def feature_geometry(
    file: FeatureFile | RawFile,
    slide_mpp: float | None = None,
    tile_size_level0: int | None = None,
    bounds_offset: Any = None,
    stated_mpp: Any = None,
) -> TileGeometry | None:
    """Where the instances of a feature file lie; None, with a warning, where it cannot be told.

    Args:
        file: TRIDENT, CLAM and `kd_mil.extract` keep the size of a tile beside the coordinates.
        slide_mpp: µm per level-0 pixel of the slide, for files that count in micrometres.
        tile_size_level0: side of a tile in level-0 pixels, instead of the file's.
        bounds_offset: (x, y) of the scanned area in level-0 pixels as the file says it; None = it does not.
        stated_mpp: µm per level-0 pixel likewise.

    Raises:
        UserError: an attribute of another type, or positions that cannot be.
    """
    coords = file.coords(slide_mpp)
    if coords is None:
        warnings.warn(f"{file.path} has no level-0 coordinates: no heat maps and no GeoJSON", stacklevel=2)
        return None
    told = file.stated
    size = tile_size_level0 or told.size_level0
    if size is None and told.size_um is not None and slide_mpp is not None:
        size = max(1, round(told.size_um / slide_mpp))
    if size is None:
        size = grid_step(coords.numpy())
        what = "no heat maps and no GeoJSON" if size is None else f"{size} taken, the step of its grid"
        warnings.warn(
            f"{file.path} does not say how large its tiles are: {what}; tile_size_level0=PIXELS", stacklevel=2
        )
    if size is None:
        return None
    mpp = slide_mpp or positive(stated_mpp, "kd_mil_slide_mpp", file.path)
    return TileGeometry(coords.numpy(), size, _position(bounds_offset, file.path), extent=told.extent, mpp=mpp)


def _position(offset: Any, path: Path) -> tuple[int, int] | None:
    """(x, y), None for None; UserError for what is no pair of whole numbers."""
    if offset is None:
        return None
    if not (isinstance(offset, list) and len(offset) == 2 and all(type(value) is int for value in offset)):
        raise UserError(f"{path}: kd_mil_bounds_offset={offset!r} is no position (x, y)")
    return offset[0], offset[1]
