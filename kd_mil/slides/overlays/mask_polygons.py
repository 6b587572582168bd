"""Outlines of a mask as polygons, exact to the pixel."""

import numpy as np
import shapely
from scipy import ndimage


def mask_polygons(mask: np.ndarray, min_pixels: int = 1, tolerance: float = 0.0) -> list[shapely.Polygon]:
    """Polygons with holes around the connected groups of pixels, largest first; a shared corner does not connect.

    Pixel (row, column) is the square from (column, row) to (column + 1, row + 1).

    Args:
        mask: (H, W) bool.
        min_pixels: smaller groups are left out, smaller holes are filled.
        tolerance: how far, in pixels, an outline may be moved to simplify it; 0 keeps every corner.
    """
    kept = _without_small(mask, min_pixels)
    kept |= ~_without_small(~kept, min_pixels)
    parts = shapely.get_parts(shapely.simplify(shapely.union_all(_runs(kept)), tolerance))
    polygons = [part for part in parts if part.geom_type == "Polygon" and not part.is_empty]
    return sorted(polygons, key=lambda polygon: -polygon.area)


def _without_small(mask: np.ndarray, min_pixels: int) -> np.ndarray:
    """The mask without its 4-connected groups of fewer pixels."""
    groups, _ = ndimage.label(mask)
    sizes = np.bincount(groups.ravel())
    return mask & (sizes[groups] >= min_pixels)


def _runs(mask: np.ndarray) -> np.ndarray:
    """Boxes (R,) around the runs of set pixels of each row."""
    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(edges == 1)
    _, ends = np.nonzero(edges == -1)
    return shapely.box(starts, rows, ends, rows + 1)
