"""The coordinates of the plot: micrometres (level-0 pixels where these are unknown), y upwards from 0."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely

from kd_mil.slides.formats.deep_zoom import TILE_SIDE
from kd_mil.viewer.layers import ShownLayer
from kd_mil.viewer.sources import Background
from kd_mil.viewer.views import View


@dataclass(frozen=True)
class Frame:
    """How level-0 pixels become places of the plot."""

    unit: float
    """Plot units per level-0 pixel: µm, or 1."""

    def to_plot(self, points: np.ndarray) -> np.ndarray:
        """(n, 2) of level-0 pixels."""
        return np.asarray(points, float) * (self.unit, -self.unit)

    def to_slide(self, x: Sequence[float], y: Sequence[float]) -> np.ndarray:
        """(n, 2) level-0 pixels of places of the plot."""
        return np.stack([np.asarray(x, float), -np.asarray(y, float)], 1) / self.unit

    def pyramid(self, background: Background) -> dict[str, float]:
        """What Bokeh's tile source needs, whose world is one tile at zoom 0: a square of 2^max_zoom finest pixels."""
        zoom = background.zoom.levels - 1
        finest = background.pixel * self.unit
        most = max(0, zoom - int(np.log2(TILE_SIDE)))
        side = TILE_SIDE * 2**most * finest
        x, y = self.to_plot(np.array([background.origin]))[0]
        return {
            "tile_size": TILE_SIDE,
            "min_zoom": 0,
            "max_zoom": most,
            "initial_resolution": finest * 2**most,
            "x_origin_offset": -x,
            "y_origin_offset": side - y,
        }

    def image(self, layer: ShownLayer) -> dict[str, float]:
        """Where a layer's picture lies: its lower left corner and its size."""
        width, height = layer.extent
        x, y = self.to_plot(np.array([[layer.origin[0], layer.origin[1] + height]]))[0]
        return {"x": x, "y": y, "dw": width * self.unit, "dh": height * self.unit}

    def segments(self, edges: np.ndarray) -> dict[str, np.ndarray]:
        """Lines (S, 4), x0, y0, x1, y1 in level-0 pixels, as columns of a source."""
        x0, y0, x1, y1 = edges.T
        places = {"x0": x0, "y0": -y0, "x1": x1, "y1": -y1}
        return {name: (values * self.unit).astype(np.float32) for name, values in places.items()}

    def lines(self, polygons: Sequence[shapely.Polygon]) -> dict[str, list[np.ndarray]]:
        """The rings of polygons as lines."""
        found = [
            shapely.get_coordinates(ring) for polygon in polygons for ring in (polygon.exterior, *polygon.interiors)
        ]
        placed = [self.to_plot(points) for points in found]
        return {"xs": [points[:, 0] for points in placed], "ys": [points[:, 1] for points in placed]}

    def ranges(self, view: View, area: tuple[float, float, float, float], aspect: float) -> tuple[float, ...]:
        """(x start, x end, y start, y end) of the plot.

        Args:
            view: where to look, if it says so.
            area: (x, y, width, height) in level-0 pixels that is shown otherwise.
            aspect: width by height of the plot on the screen.
        """
        left, top, width, height = area
        x, y, wide = left + width / 2, top + height / 2, max(width, height * aspect) * 1.04
        if view.x is not None and view.y is not None and view.width is not None:
            x, y, wide = view.x, view.y, view.width
        high = wide / aspect
        corners = self.to_plot(np.array([[x - wide / 2, y + high / 2], [x + wide / 2, y - high / 2]]))
        return corners[0, 0], corners[1, 0], corners[0, 1], corners[1, 1]


def deep_zoom_level(levels: int, zoom: int, most: int) -> int:
    """The level of `openslide.deepzoom` that a zoom of the plot shows: `most` is its last."""
    return levels - 1 - (most - zoom)
