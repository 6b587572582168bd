"""Heat maps from stored coordinates and scores; of the slide itself only a thumbnail is needed.

Figures are built from matplotlib objects without `pyplot`, so threads and callbacks do not share state.
"""

from pathlib import Path
from typing import NamedTuple

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
from kd_mil.slides.overlays.scale_bar import bar_length, length_text
from kd_mil.slides.overlays.score_grid import score_colors, score_grid, smoothed

DPI = 120


class Tiles(NamedTuple):
    """Where N tiles lie on a thumbnail."""

    coords: np.ndarray
    """(N, 2) level-0 pixels."""
    size_level0: int | np.ndarray
    """Edge of each; or (N, 2) (width, height), of pieces that differ in size."""
    downsample: float
    """Level-0 pixels per pixel of the thumbnail."""
    origin: tuple[int, int] = (0, 0)
    """Level-0 (x, y) of the thumbnail's top-left corner."""


def heatmap_axes(
    axes: Axes,
    thumbnail: np.ndarray,
    tiles: Tiles,
    scores: np.ndarray,
    title: str,
    *,
    label: str = "",
    limits: tuple[float, float] | None = None,
    mpp: float | None = None,
    smoothing: float = 0.0,
) -> None:
    """Draw the scores (N,) over the thumbnail (h, w, 3) uint8 with a colour bar: every heat map of slides is this one.

    Raises:
        UserError: not one score per tile.
    """
    shape = thumbnail.shape[:2]
    grid = score_grid(tiles.coords - tiles.origin, scores, tiles.size_level0, tiles.downsample, shape)
    grid = smoothed(grid, smoothing * float(np.min(tiles.size_level0)) / tiles.downsample)
    image = _overlay(axes, thumbnail, grid, limits, title)
    axes.figure.colorbar(image, ax=axes, label=label, fraction=0.04, pad=0.02)
    if mpp is not None:
        _scale_bar(axes, thumbnail, mpp * tiles.downsample)


def draw_heatmap(
    thumbnail: np.ndarray,
    coords: np.ndarray,
    scores: np.ndarray,
    tile_size_level0: int | np.ndarray,
    downsample: float,
    path: Path,
    title: str,
    *,
    label: str = "score",
    limits: tuple[float, float] | None = None,
    origin: tuple[int, int] = (0, 0),
    mpp: float | None = None,
    smoothing: float = 0.0,
) -> None:
    """Write a PNG of the scores over the thumbnail, with a colour bar; low scores let the slide show through.

    Args:
        thumbnail: (h, w, 3) uint8.
        coords: (N, 2) level-0 pixels; N = 0 leaves the bare thumbnail.
        scores: (N,); NaN = no tile.
        tile_size_level0: edge of a tile in level-0 pixels; or (N, 2) (width, height) of each.
        downsample: level-0 pixels per pixel of the thumbnail.
        path: the PNG; it appears once complete.
        title: above the picture.
        label: beside the colour bar.
        limits: scores at the ends of the colour scale; by default the smallest and the largest.
        origin: level-0 (x, y) of the thumbnail's top-left corner, for slides whose thumbnail is cut to their bounds.
        mpp: µm per level-0 pixel, for a scale bar; None draws none.
        smoothing: standard deviation, in edges of a tile, of a Gaussian over the scores; 0 = none.

    Raises:
        UserError: not one score per tile.
    """
    figure = _figure(thumbnail, columns=1, height=7.0)
    axes = figure.add_subplot()
    tiles = Tiles(np.asarray(coords), tile_size_level0, downsample, origin)
    heatmap_axes(axes, thumbnail, tiles, scores, title, label=label, limits=limits, mpp=mpp, smoothing=smoothing)
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
    smoothing: float = 0.0,
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
        smoothing: as in `draw_heatmap`.

    Returns:
        A figure ready to be drawn.
    """
    figure = _figure(thumbnail, columns=1 + len(panels), height=4.5)
    figure.suptitle(title)
    axes = figure.subplots(1, 1 + len(panels), squeeze=False)[0]
    known = "truth unknown" if truth is None else "no tumour" if truth.is_empty else "truth"
    _overlay(axes[0], thumbnail, None, None, known)
    tiles = Tiles(np.asarray(coords), tile_size_level0, downsample, origin)
    for panel, (name, scores) in zip(axes[1:], panels.items(), strict=True):
        bounds = (limits or {}).get(name)
        heatmap_axes(panel, thumbnail, tiles, scores, name, limits=bounds, smoothing=smoothing)
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
        image = axes.imshow(masked, cmap=ListedColormap(score_colors()), vmin=low, vmax=high, interpolation="nearest")
    return image


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
    length = bar_length(width, um_per_pixel)
    if length == 0:
        return
    x, y = 0.03 * width, 0.97 * height
    halo = [withStroke(linewidth=5, foreground="white")]
    axes.plot([x, x + length / um_per_pixel], [y, y], color="black", linewidth=2, path_effects=halo)
    text = length_text(length)
    axes.text(x, y - 0.015 * height, text, fontsize="small", path_effects=[withStroke(linewidth=3, foreground="white")])


def _outline(axes: Axes, truth: shapely.Geometry | None, downsample: float, origin: tuple[int, int]) -> None:
    if truth is None or truth.is_empty:
        return
    rings = shapely.get_rings(shapely.get_parts(truth))
    lines = [(shapely.get_coordinates(ring) - origin) / downsample - 0.5 for ring in rings]
    for color, width in (("white", 2.4), ("black", 1.0)):
        axes.add_collection(LineCollection(lines, colors=color, linewidths=width))
