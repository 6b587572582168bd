"""Heat maps from stored coordinates and scores; of the slide itself only a thumbnail is needed.

Figures are built from matplotlib objects without `pyplot`, so threads and callbacks do not share state.
"""

from pathlib import Path

import matplotlib
import numpy as np
import shapely
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patheffects import withStroke

from kd_mil.core.atomic import write_figure
from kd_mil.core.errors import UserError

COLORMAP = "viridis"
"""Perceptually uniform, readable without colour vision, and far from the pink of the slide."""
OPACITY = (0.3, 0.75)
"""Of the lowest and of the highest score: where there is little to show, the tissue shows through."""
BAR_SHARE = 0.25
"""Largest share of the picture's width that the scale bar takes."""
ROUND_LENGTHS = [step * 10**power for power in range(6) for step in (1, 2, 5)]
"""Lengths of a scale bar, µm."""
DPI = 120


def score_grid(
    coords: np.ndarray,
    scores: np.ndarray,
    tile_size_level0: int,
    step: float,
    shape: tuple[int, int] | None = None,
) -> np.ndarray:
    """Scores on a raster: the mean over the tiles that cover a cell, NaN where there is none.

    Tiles need not lie on a common grid. Cell (r, c) covers the level-0 pixels from (c, r) * step on; the edges of a
    tile are rounded to whole cells.

    Args:
        coords: (N, 2) (x, y) of the top-left corners in level-0 pixels.
        scores: (N,); tiles whose score is NaN count as absent.
        tile_size_level0: edge of a tile in level-0 pixels.
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
    coords, scores = coords[known], scores[known]
    first = np.rint(coords / step).astype(int)
    last = np.maximum(np.rint((coords + tile_size_level0) / step).astype(int), first + 1)
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


def draw_heatmap(
    thumbnail: np.ndarray,
    coords: np.ndarray,
    scores: np.ndarray,
    tile_size_level0: int,
    downsample: float,
    path: Path,
    title: str,
    *,
    label: str = "score",
    limits: tuple[float, float] | None = None,
    origin: tuple[int, int] = (0, 0),
    mpp: float | None = None,
) -> None:
    """Write a PNG of the scores over the thumbnail, with a colour bar; transparent where there is no tile.

    Args:
        thumbnail: (h, w, 3) uint8.
        coords: (N, 2) level-0 pixels; N = 0 leaves the bare thumbnail.
        scores: (N,); NaN = no tile.
        tile_size_level0: edge of a tile in level-0 pixels.
        downsample: level-0 pixels per pixel of the thumbnail.
        path: the PNG; it appears once complete.
        title: above the picture.
        label: beside the colour bar.
        limits: scores at the ends of the colour scale; by default the smallest and the largest.
        origin: level-0 (x, y) of the thumbnail's top-left corner, for slides whose thumbnail is cut to their bounds.
        mpp: µm per level-0 pixel, for a scale bar; None draws none.

    Raises:
        UserError: not one score per tile.
    """
    figure = _figure(thumbnail, columns=1, height=7.0)
    axes = figure.add_subplot()
    grid = score_grid(np.asarray(coords) - origin, scores, tile_size_level0, downsample, thumbnail.shape[:2])
    image = _overlay(axes, thumbnail, grid, limits, title)
    figure.colorbar(image, ax=axes, label=label, fraction=0.04, pad=0.02)
    if mpp is not None:
        _scale_bar(axes, thumbnail, mpp * downsample)
    figure.get_layout_engine().execute(figure)  # type: ignore[union-attr]
    figure.set_layout_engine(None)  # saving would lay it out once more, and draw everything twice
    write_figure(path, figure, dpi=DPI)


def comparison_figure(
    thumbnail: np.ndarray,
    truth: shapely.Geometry | None,
    coords: np.ndarray,
    panels: dict[str, np.ndarray],
    tile_size_level0: int,
    downsample: float,
    title: str,
    *,
    limits: dict[str, tuple[float, float]] | None = None,
    origin: tuple[int, int] = (0, 0),
) -> Figure:
    """Side by side: the slide with the truth outlined, then one heat map per entry of `panels`, outlined too.

    Args:
        thumbnail: (h, w, 3) uint8.
        truth: tumour outlines in level-0 pixels; None where nobody has drawn any.
        coords: (N, 2) level-0 pixels.
        panels: scores (N,) by panel title, such as "teacher attention" and "student probability".
        tile_size_level0: edge of a tile in level-0 pixels.
        downsample: level-0 pixels per pixel of the thumbnail.
        title: above all panels.
        limits: ends of the colour scale by panel title; by default the smallest and the largest score.
        origin: level-0 (x, y) of the thumbnail's top-left corner.

    Returns:
        A figure ready for `SummaryWriter.add_figure` or `savefig`.
    """
    figure = _figure(thumbnail, columns=1 + len(panels), height=4.5)
    figure.suptitle(title)
    axes = figure.subplots(1, 1 + len(panels), squeeze=False)[0]
    known = "truth unknown" if truth is None else "no tumour" if truth.is_empty else "truth"
    _overlay(axes[0], thumbnail, None, None, known)
    for panel, (name, scores) in zip(axes[1:], panels.items(), strict=True):
        grid = score_grid(np.asarray(coords) - origin, scores, tile_size_level0, downsample, thumbnail.shape[:2])
        image = _overlay(panel, thumbnail, grid, (limits or {}).get(name), name)
        figure.colorbar(image, ax=panel, fraction=0.04, pad=0.02)
    for panel in axes:
        _outline(panel, truth, downsample, origin)
    return figure


def _figure(thumbnail: np.ndarray, columns: int, height: float) -> Figure:
    aspect = float(np.clip(thumbnail.shape[1] / thumbnail.shape[0], 0.4, 3.0))
    figure = Figure(figsize=(columns * (height * aspect + 0.8), height + 0.4), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _overlay(
    axes: Axes, thumbnail: np.ndarray, grid: np.ndarray | None, limits: tuple[float, float] | None, title: str
) -> AxesImage:
    axes.set_title(title, fontsize="medium", wrap=True)
    axes.set_axis_off()
    image = axes.imshow(thumbnail, interpolation="antialiased")
    if grid is not None:
        low, high = limits if limits is not None else _range(grid)
        masked = np.ma.masked_invalid(grid)
        image = axes.imshow(masked, cmap=_colormap(), vmin=low, vmax=high, interpolation="nearest")
    return image


def _colormap() -> ListedColormap:
    colors = matplotlib.colormaps[COLORMAP](np.linspace(0, 1, 256))
    colors[:, 3] = np.linspace(*OPACITY, 256)
    return ListedColormap(colors)


def _range(grid: np.ndarray) -> tuple[float, float]:
    """Smallest and largest score; a scale of width 1 around scores that are all equal, 0 to 1 where there is none."""
    known = grid[np.isfinite(grid)]
    if not len(known):
        return 0.0, 1.0
    low, high = float(known.min()), float(known.max())
    return (low, high) if high - low > 1e-12 * max(abs(low), abs(high)) else (low - 0.5, low + 0.5)


def _scale_bar(axes: Axes, thumbnail: np.ndarray, um_per_pixel: float) -> None:
    """A bar of a round length in the lower left corner."""
    height, width = thumbnail.shape[:2]
    longest = BAR_SHARE * width * um_per_pixel
    length = max((candidate for candidate in ROUND_LENGTHS if candidate <= longest), default=0)
    if length == 0:
        return
    x, y = 0.03 * width, 0.97 * height
    halo = [withStroke(linewidth=5, foreground="white")]
    axes.plot([x, x + length / um_per_pixel], [y, y], color="black", linewidth=2, path_effects=halo)
    text = f"{length / 1000:g} mm" if length >= 1000 else f"{length:g} µm"
    axes.text(x, y - 0.015 * height, text, fontsize="small", path_effects=[withStroke(linewidth=3, foreground="white")])


def _outline(axes: Axes, truth: shapely.Geometry | None, downsample: float, origin: tuple[int, int]) -> None:
    if truth is None or truth.is_empty:
        return
    rings = shapely.get_rings(shapely.get_parts(truth))
    lines = [(shapely.get_coordinates(ring) - origin) / downsample - 0.5 for ring in rings]
    for color, width in (("white", 2.4), ("black", 1.0)):
        axes.add_collection(LineCollection(lines, colors=color, linewidths=width))
