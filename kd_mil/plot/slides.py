"""One predicted slide."""

import numpy as np
from matplotlib.axes import Axes

from kd_mil.core.checks import at_least
from kd_mil.core.errors import UserError
from kd_mil.plot.axes import axes_or_new
from kd_mil.prediction.folder import PredictedSlide
from kd_mil.slides.overlays.heatmap import Tiles, heatmap_axes


def heatmap(
    prediction: PredictedSlide, role: str | None = None, ax: Axes | None = None, smoothing: float = 0.0
) -> Axes:
    """The heat map of a slide as `kd_mil.predict` draws it: scores over its thumbnail on the scale 0 to 1.

    Args:
        prediction: the slide.
        role: whose scores; None = those of the one that decides.
        ax: where; None = new axes.
        smoothing: standard deviation, in edges of a tile, of a Gaussian over the scores; 0 = none.

    Examples:
        >>> axes = heatmap(Predictions("predictions")["case_1"], role="teacher")  # doctest: +SKIP
        >>> axes.figure.savefig("case_1.png")  # doctest: +SKIP

    Raises:
        UserError: no such role, a slide without prediction, or one the positions of whose tiles are not known.
    """
    at_least("smoothing", smoothing, 0)
    role, panel, table = prediction.role(role), prediction.panel, prediction.tiles
    height, width = panel.thumbnail.shape[:2]
    ax = axes_or_new(ax, (7.0 * float(np.clip(width / height, 0.4, 3.0)) + 0.8, 7.4))
    label = next(layer.label for layer in panel.layers if layer.name == role)
    coords = table[["x", "y"]].to_numpy()
    sizes = table[["width", "height"]].to_numpy() if "width" in table else int(table["tile_size_level0"].iloc[0])
    tiles = Tiles(coords, sizes, panel.downsample, panel.origin)
    title, scores = f"{panel.name}\n{panel.verdict}", table[f"{role}_prob"].to_numpy()
    limits, mpp = (0.0, 1.0), panel.mpp
    heatmap_axes(ax, panel.thumbnail, tiles, scores, title, label=label, limits=limits, mpp=mpp, smoothing=smoothing)
    return ax


def top_tiles(prediction: PredictedSlide, role: str | None = None, lowest: bool = False) -> np.ndarray:
    """The tiles of the highest (or lowest) scores, each with its score and place: axes (K,), K at most 8, of a figure.

    Args:
        prediction: the slide.
        role: whose scores; None = those of the one that decides.
        lowest: those of the lowest scores instead.

    Raises:
        UserError: no such role, or the slide was not at hand when it was predicted.
    """
    role = prediction.role(role)
    layer = next(layer for layer in prediction.panel.layers if layer.name == role)
    tiles = layer.lowest if lowest else layer.highest
    if not tiles or any(tile.pixels is None for tile in tiles):
        raise UserError(f"{prediction.folder}: the pixels of {prediction.slide_id!r} were not at hand: give slides=")
    first = axes_or_new(None, (1.6 * len(tiles), 2.2))
    figure = first.figure
    first.remove()
    panels = figure.subplots(1, len(tiles), squeeze=False)[0]
    for ax, tile in zip(panels, tiles, strict=True):
        ax.imshow(tile.pixels)
        ax.set_title(f"{tile.score:.3f}", fontsize="small")
        ax.set_xlabel(f"{tile.x}, {tile.y}", fontsize="x-small")
        ax.set(xticks=[], yticks=[])
    return panels
