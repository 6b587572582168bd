"""Where the tiles of a slide lie on it, and what they are shown on without the slide."""

import warnings
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from torch import Tensor

from kd_mil.data.features.provenance import plain
from kd_mil.slides.extraction.store import read_attributes
from kd_mil.slides.overlays.slide_picture import SlidePicture

BLANK = 245
"""Grey of a canvas where no slide is at hand, so that the extent shows on a white page."""


class TileGeometry(NamedTuple):
    """Positions and size of the N tiles of a slide."""

    coords: np.ndarray
    """(N, 2) int64 (x, y) of the top-left corners in level-0 pixels."""
    tile_size_level0: int
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


def feature_geometry(path: Path, coords: Tensor | None, tile_size_level0: int | None = None) -> TileGeometry | None:
    """Where the instances of a feature file lie; None, with a warning, where it cannot be told.

    Args:
        path: the file; TRIDENT and `kd_mil.extract` keep tile size and extent beside the coordinates.
        coords: (N, 2) level-0 pixels, as read from it.
        tile_size_level0: side of a tile in level-0 pixels, instead of the file's.
    """
    if coords is None:
        warnings.warn(f"{path} has no level-0 coordinates: no heat maps and no GeoJSON", stacklevel=2)
        return None
    stated, of_file = {}, {}
    if path.suffix in (".h5", ".hdf5"):
        of_file = read_attributes(path)
        with h5py.File(path, "r") as file:
            stated = {key: plain(value) for key, value in file["coords"].attrs.items()}
    size = tile_size_level0 or stated.get("patch_size_level0")
    if size is None:
        size = grid_step(coords.numpy())
        told = "no heat maps and no GeoJSON" if size is None else f"{size} taken, the step of its grid"
        warnings.warn(f"{path} does not say how large its tiles are: {told}; tile_size_level0=PIXELS", stacklevel=2)
    if size is None:
        return None
    width, height = stated.get("level0_width"), stated.get("level0_height")
    extent = None if width is None or height is None else (int(width), int(height))
    return TileGeometry(coords.numpy(), int(size), extent=extent, mpp=of_file.get("slide_mpp"))


def grid_step(coords: np.ndarray) -> int | None:
    """The smallest distance of two columns or two rows of corners (N, 2); None where all lie on one point."""
    steps = [np.diff(np.unique(column)) for column in coords.T]
    return int(min(step.min() for step in steps if len(step))) if any(map(len, steps)) else None
