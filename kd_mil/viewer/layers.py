"""Layers over a slide as the browser colours them: grids of scores, and palettes whose alpha rises with the score."""

from dataclasses import dataclass

import matplotlib
import numpy as np
import shapely

from kd_mil.core.errors import UserError
from kd_mil.prediction.panels import Layer, Panel
from kd_mil.slides.overlays.mask_polygons import mask_edges, mask_polygons
from kd_mil.slides.overlays.score_grid import MOST_OPAQUE, SHADES, shades

DIFFERENCE = "difference"
DIVERGING = "PuOr"
"""Of differences: colour-blind-safe (ColorBrewer), orange where the second role is lower, violet where it is higher."""


@dataclass(frozen=True)
class ShownLayer:
    """A grid to colour, and where it lies, in level-0 pixels."""

    name: str
    label: str
    grid: np.ndarray
    """(rows, columns) float32, NaN where there is nothing."""
    cell: float
    origin: tuple[float, float]
    threshold: float
    signed: bool = False
    """Values in [-1, 1] instead of [0, 1]; the threshold is of their size."""

    @property
    def extent(self) -> tuple[float, float]:
        """(width, height)."""
        rows, columns = self.grid.shape
        return columns * self.cell, rows * self.cell


def shown_layers(panel: Panel, mask: Panel | None = None) -> list[ShownLayer]:
    """The layers of a slide: those of its panel, what the student says beyond the teacher, and a segmentation of it."""
    layers = [_shown(layer, panel) for layer in panel.layers]
    by_name = {layer.name: layer for layer in panel.layers}
    if {"teacher", "student"} <= set(by_name):
        beyond = by_name["student"].grid - by_name["teacher"].grid
        where = panel.cell, panel.cell_origin
        layers.append(ShownLayer(DIFFERENCE, "student less teacher", beyond, *where, 0.1, signed=True))
    if mask is not None:
        layers += [_shown(layer, mask, "mask") for layer in mask.layers]
    return layers


def _shown(layer: Layer, panel: Panel, name: str | None = None) -> ShownLayer:
    return ShownLayer(name or layer.name, layer.label, layer.grid, panel.cell, panel.cell_origin, layer.threshold)


def palette(signed: bool) -> list[str]:
    """256 colours `#rrggbbaa` of values from the lowest to the highest; what is near 0 is transparent."""
    if not signed:
        return [_hex(color) for color in shades()]
    colors = np.rint(255 * matplotlib.colormaps[DIVERGING](np.linspace(0, 1, SHADES))).astype(int)
    colors[:, 3] = np.rint(255 * MOST_OPAQUE * np.abs(np.linspace(-1, 1, SHADES)) ** 0.5)
    return [_hex(color) for color in colors.tolist()]


def _hex(color: list[int]) -> str:
    return "#" + "".join(f"{part:02x}" for part in color)


def tissue_edges(layer: ShownLayer) -> np.ndarray:
    """Lines (S, 4), x0, y0, x1, y1 in level-0 pixels, around where a layer says anything."""
    return _edges(np.isfinite(layer.grid), layer)


def finding_edges(layer: ShownLayer) -> np.ndarray:
    """The same around where a layer reaches its threshold."""
    return _edges(_reached(layer, layer.threshold), layer)


def regions(layer: ShownLayer, threshold: float) -> list[shapely.Polygon]:
    """Outlines, in level-0 pixels, of where a layer reaches a threshold, largest first.

    Raises:
        UserError: a layer of differences.
    """
    if layer.signed:
        raise UserError(f"{layer.name} is no probability: choose the layer of a role")
    return [
        shapely.transform(polygon, lambda points: points * layer.cell + layer.origin)
        for polygon in mask_polygons(_reached(layer, threshold))
    ]


def _reached(layer: ShownLayer, threshold: float) -> np.ndarray:
    return layer.grid >= np.float32(threshold)  # NaN does not reach it


def _edges(mask: np.ndarray, layer: ShownLayer) -> np.ndarray:
    return mask_edges(mask) * layer.cell + np.tile(layer.origin, 2)
