"""Scores of tiles on a raster of cells, smoothed where asked for, and the colours they are shown in."""

import matplotlib
import numpy as np
from scipy import ndimage

from kd_mil.core.errors import UserError

COLORMAP = "viridis"
"""Perceptually uniform, readable without colour vision, and far from the pink of the slide."""
MOST_OPAQUE = 0.8
"""Of the highest score; the lowest is transparent, so that tissue without a finding looks as on the slide."""
SHADES = 256
MOST_CELLS = 1_000_000
"""Of a raster that is kept for showing."""


def score_colors() -> np.ndarray:
    """The colour of each score from the lowest to the highest: (256, 4) RGBA in [0, 1], alpha rising from 0.

    >>> score_colors()[[0, -1], 3].tolist()
    [0.0, 0.8]
    """
    colors = matplotlib.colormaps[COLORMAP](np.linspace(0, 1, SHADES))
    colors[:, 3] = np.linspace(0, MOST_OPAQUE, SHADES)
    return colors


def shades() -> list[list[int]]:
    """The same (256, 4) as whole numbers 0 to 255, for a browser."""
    return np.rint(255 * score_colors()).astype(int).tolist()


def score_grid(
    coords: np.ndarray,
    scores: np.ndarray,
    tile_size_level0: int | np.ndarray,
    step: float,
    shape: tuple[int, int] | None = None,
) -> np.ndarray:
    """Scores on a raster: the mean over the tiles that cover a cell, NaN where there is none.

    Tiles need not lie on a common grid. Cell (r, c) covers the level-0 pixels from (c, r) * step on; the edges of a
    tile are rounded to whole cells.

    Args:
        coords: (N, 2) (x, y) of the top-left corners in level-0 pixels.
        scores: (N,); tiles whose score is NaN count as absent.
        tile_size_level0: edge of a tile in level-0 pixels; or (N, 2) (width, height) of each.
        step: edge of a cell in level-0 pixels; at most a tile, or cells show only the tiles that begin there.
        shape: rows and columns of the result, cutting off what lies beyond; by default as many as the tiles need.

    Returns:
        (rows, columns) float64.

    Raises:
        UserError: not one score per tile.
    """
    coords, scores = np.asarray(coords, float).reshape(-1, 2), np.asarray(scores, float)
    if len(coords) != len(scores):
        raise UserError(f"{len(scores)} scores for {len(coords)} tiles: a heat map needs one per tile")
    known = np.isfinite(scores)
    sizes = np.broadcast_to(np.reshape(tile_size_level0, (-1, np.ndim(tile_size_level0) or 1)), coords.shape)[known]
    coords, scores = coords[known], scores[known]
    first = np.rint(coords / step).astype(int)
    last = np.maximum(np.rint((coords + sizes) / step).astype(int), first + 1)
    if shape is None:
        shape = (last[:, 1].max(initial=0), last[:, 0].max(initial=0))
    first, last = (np.clip(corner, 0, (shape[1], shape[0])) for corner in (first, last))
    count = _add_rectangles(first, last, np.ones_like(scores), shape)
    total = _add_rectangles(first, last, scores, shape)
    return np.divide(total, np.rint(count), out=np.full(shape, np.nan), where=count > 0.5)


def _add_rectangles(first: np.ndarray, last: np.ndarray, values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Sum of rectangles, each of constant value: its four corners are marked, then summed up over both axes."""
    corners = np.zeros((shape[0] + 1, shape[1] + 1))
    for (columns, rows), sign in (
        ((first[:, 0], first[:, 1]), 1),
        ((last[:, 0], first[:, 1]), -1),
        ((first[:, 0], last[:, 1]), -1),
        ((last[:, 0], last[:, 1]), 1),
    ):
        np.add.at(corners, (rows, columns), sign * values)
    return corners.cumsum(axis=0).cumsum(axis=1)[:-1, :-1]


def cell_step(coords: np.ndarray, tile_size_level0: int, most_cells: int = MOST_CELLS) -> float:
    """Edge in level-0 pixels of the cells by which tiles (N, 2) are shown from the corner of the first ones on.

    The largest one that all edges of tiles are multiples of, so that no edge is rounded; where that would make more
    than `most_cells`, the one that makes as many.

    >>> cell_step(np.array([[0, 0], [256, 128]]), 256)
    128.0
    """
    offsets = np.asarray(coords, np.int64) - np.asarray(coords, np.int64).min(axis=0)
    exact = float(np.gcd.reduce(np.append(np.unique(offsets), tile_size_level0)))
    width, height = (offsets.max(axis=0) + tile_size_level0).tolist()
    return max(exact, float(np.sqrt(width * height / most_cells)))


def smoothed(grid: np.ndarray, cells: float) -> np.ndarray:
    """The grid (rows, columns) blurred by a Gaussian among the cells that have a score; the others stay NaN.

    Args:
        grid: of `score_grid`.
        cells: standard deviation in cells; 0 = as it is.
    """
    if cells == 0:
        return grid
    known = np.isfinite(grid)
    weight = ndimage.gaussian_filter(known.astype(float), cells, mode="constant")
    total = ndimage.gaussian_filter(np.where(known, grid, 0.0), cells, mode="constant")
    return np.divide(total, weight, out=np.full(grid.shape, np.nan), where=known)
