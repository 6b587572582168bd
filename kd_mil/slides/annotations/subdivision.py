"""Large polygons cut into small ones of the same area: tiles cut those in a fraction of the time."""

import numpy as np
import shapely

from kd_mil.slides.annotations.outlines import areas_of

MAX_VERTICES = 256
MAX_HALVINGS = 24
"""More would cut below a pixel: the largest slides measure some 2**18 pixels."""


def subdivided(polygons: np.ndarray) -> np.ndarray:
    """The same area in polygons (P,) of at most `MAX_VERTICES`."""
    for _ in range(MAX_HALVINGS):
        large = shapely.get_num_coordinates(polygons) > MAX_VERTICES
        if not large.any():
            break
        left, top, right, bottom = shapely.bounds(polygons[large]).T
        wide = right - left > bottom - top
        middle_x, middle_y = np.where(wide, (left + right) / 2, right), np.where(wide, bottom, (top + bottom) / 2)
        first = shapely.box(left, top, middle_x, middle_y)
        second = shapely.box(np.where(wide, middle_x, left), np.where(wide, top, middle_y), right, bottom)
        halves = shapely.intersection(polygons[large], np.stack([first, second]))
        polygons = np.concatenate([polygons[~large], areas_of(halves.ravel())])
    return polygons
