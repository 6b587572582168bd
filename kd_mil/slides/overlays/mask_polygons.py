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
    rows, starts, ends = _runs(kept)
    boxes = shapely.box(starts, rows, ends, rows + 1)
    outlines = shapely.simplify(shapely.union_all(boxes), tolerance, preserve_topology=tolerance > 0)
    parts = shapely.get_parts(outlines)
    polygons = [part for part in parts if part.geom_type == "Polygon" and not part.is_empty]
    return sorted(polygons, key=lambda polygon: -polygon.area)


def _without_small(mask: np.ndarray, min_pixels: int) -> np.ndarray:
    """The mask without its 4-connected groups of fewer pixels."""
    groups, _ = ndimage.label(mask)
    sizes = np.bincount(groups.ravel())
    return mask & (sizes[groups] >= min_pixels)


def mask_edges(mask: np.ndarray) -> np.ndarray:
    """The outlines of a mask (H, W) as lines (S, 4), x0, y0, x1, y1 in pixels: of all its edges, in no order.

    For drawing alone: a mask of noise costs as little as one of a few areas.
    """
    padded = np.pad(mask, 1).astype(np.int8)
    rows, starts, ends = _runs(np.diff(padded, axis=0)[:, 1:-1] != 0)
    columns, tops, bottoms = _runs(np.diff(padded, axis=1)[1:-1].T != 0)
    across, down = np.stack([starts, rows, ends, rows], 1), np.stack([columns, tops, columns, bottoms], 1)
    return np.concatenate([across, down])


def _runs(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The runs (R,) of set pixels of each row: row, first column, and the column after the last."""
    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(edges == 1)
    _, ends = np.nonzero(edges == -1)
    return rows, starts, ends
