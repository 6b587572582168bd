"""Where the instances of a feature file lie on their slide: units, grids and sizes of the tools that wrote it."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kd_mil.core.errors import UserError
from kd_mil.data.features.files.attributes import plain, positive, word

FARTHEST = 2**31
"""Level-0 pixels; no slide is as large, and CLAM's coordinates would not hold it."""
STAMP_PIXELS, STAMP_MICROMETRES = 224, 256.0
"""STAMP before 2.0 counts 224 for the 256 µm of a tile, or micrometres."""
CLEAR = 0.5
"""Share of the distances of neighbours that are multiples of the most frequent one, if that is the step of a grid."""


class Statements(NamedTuple):
    """What a feature file says of its tiles; None where it does not."""

    size_level0: int | None = None
    """Side of a tile in level-0 pixels."""
    extent: tuple[int, int] | None = None
    """(width, height) of level 0."""
    micrometres: float | None = None
    """Of one unit of the coordinates; None where they are level-0 pixels."""
    size_um: float | None = None
    """Side of a tile in µm."""
    is_unclear: bool = False
    """Written by STAMP, which says nothing of the unit."""


def statements(
    path: Path, of_file: Mapping[str, Any], of_coords: Mapping[str, Any], coords: np.ndarray | None
) -> Statements:
    """What the attributes of the file and of its coordinates (N, 2) say, as TRIDENT, CLAM, STAMP and slide2vec do.

    STAMP: https://github.com/KatherLab/STAMP, `get_coords`. CLAM keeps the side of a tile in pixels of a level, and how
    much finer level 0 is.

    Raises:
        UserError: an attribute of another type, or one that cannot be.
    """
    stated = {name: plain(value) for name, value in [*of_file.items(), *of_coords.items()]}
    numbers = {
        name: positive(stated.get(name), name, path)
        for name in ("patch_size_level0", "tile_size_lv0", "level0_width", "level0_height", "tile_size_um")
    }
    size, width, height = (numbers[name] for name in ("patch_size_level0", "level0_width", "level0_height"))
    size = size or numbers["tile_size_lv0"]  # slide2vec
    if size is None and {"patch_size", "downsample"} <= stated.keys():  # CLAM
        downsample = stated["downsample"][0] if isinstance(stated["downsample"], list) else stated["downsample"]
        side, finer = positive(stated["patch_size"], "patch_size", path), positive(downsample, "downsample", path)
        size = None if side is None or finer is None else side * finer
    extent = None if width is None or height is None else (round(width), round(height))
    if size is not None and round(size) not in range(1, max(extent or (FARTHEST,)) + 1):
        raise UserError(f"{path}: its tiles are {size:g} level-0 pixels large, which cannot be on a slide of {extent}")
    told = Statements(None if size is None else round(size), extent)
    unit, size_um = word(stated.get("unit"), "unit", path), numbers["tile_size_um"]
    if unit == "um" or size_um is not None:
        return told._replace(micrometres=1.0, size_um=size_um or positive(stated.get("tile_size"), "tile_size", path))
    if "extractor" in stated and size is None and coords is not None:
        return _old_stamp(told, grid_step(coords))
    return told


def _old_stamp(told: Statements, step: float | None) -> Statements:
    if step == STAMP_PIXELS:
        return told._replace(micrometres=STAMP_MICROMETRES / STAMP_PIXELS, size_um=STAMP_MICROMETRES)
    if step == STAMP_MICROMETRES:
        return told._replace(micrometres=1.0, size_um=STAMP_MICROMETRES)
    return told._replace(is_unclear=True)


def level0_pixels(path: Path, coords: np.ndarray, told: Statements, slide_mpp: float | None) -> np.ndarray | None:
    """Coordinates (N, 2) as int64 level-0 pixels; None, with a warning, where their unit cannot be told or scaled.

    Args:
        path: of the file, for the message.
        coords: (N, 2) float64, as stored.
        told: what the file says of them.
        slide_mpp: µm per level-0 pixel of the slide, where it is known.

    Raises:
        UserError: coordinates that are not finite, negative, or beyond the slide.
    """
    if told.is_unclear or (told.micrometres is not None and slide_mpp is None):
        unit = "an unknown unit" if told.is_unclear else "micrometres"
        warnings.warn(f"feature files of STAMP with coordinates in {unit}: left out, no overlays", stacklevel=2)
        return None
    if told.micrometres is not None and slide_mpp is not None:
        coords = coords * told.micrometres / slide_mpp
    ends = np.array(told.extent or (FARTHEST, FARTHEST))
    outside = ~(np.isfinite(coords) & (coords >= 0) & (coords < ends)).all(axis=1)
    if outside.any():
        row = int(np.flatnonzero(outside)[0])
        raise UserError(
            f"{path}: coords of instance {row} (counted from 0) are {coords[row].tolist()}: not finite, negative, or "
            f"beyond a slide of {ends.tolist()} pixels"
        )
    return np.rint(coords).astype(np.int64)


def corners_of(centres: np.ndarray) -> np.ndarray:
    """Top left corners (N, 2) of tiles whose middles (N, 2) slideflow keeps.

    Positions less than half a step from the slide's border are corners already: the tiles would leave the slide.
    """
    half = (grid_step(centres) or 0) // 2
    return centres - half if centres.min() >= half else centres


def grid_step(coords: np.ndarray) -> int | None:
    """The side of the tiles of a grid, the most frequent distance of neighbours; None where there is no clear one.

    Pieces of tissue may have grids of their own, as CLAM's contours: neighbours are tiles of one row or of one column.

    Args:
        coords: (N, 2) (x, y) of the corners.
    """
    distances = np.concatenate([_neighbours(coords), _neighbours(coords[:, ::-1])])
    if not len(distances):
        return None
    steps, counts = np.unique(distances, return_counts=True)
    step = steps[counts.argmax()]
    return int(step) if (distances % step == 0).mean() >= CLEAR else None


def _neighbours(coords: np.ndarray) -> np.ndarray:
    """Distances in x, rounded, of the tiles (N, 2) that are next to each other in their row."""
    finite = np.rint(coords[np.isfinite(coords).all(axis=1)])
    x, y = np.unique(finite[:, ::-1], axis=0).T[::-1]
    return np.diff(x)[np.diff(y) == 0]
