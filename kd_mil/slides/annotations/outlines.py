"""What every reader of outlines returns: valid polygons in level-0 pixels, and the class of each."""

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import shapely

from kd_mil.core.errors import UserError

FARTHEST = 2**31
"""Level-0 pixels; no slide is as large."""


class ClassifiedPolygons(NamedTuple):
    """Valid polygons and the class of each."""

    polygons: np.ndarray
    """(P,) shapely polygons and multipolygons in level-0 pixels."""
    names: list[str]
    """(P,) class as written; "None" where there is none."""

    def of(self, classes: Iterable[str]) -> np.ndarray:
        """The polygons of the given classes, without regard to case."""
        wanted = {name.casefold() for name in classes}
        return self.polygons[[name.casefold() in wanted for name in self.names]]


def check_coordinates(geometries: shapely.Geometry | np.ndarray) -> None:
    """ValueError for a coordinate that no slide has."""
    if not (np.abs(shapely.get_coordinates(geometries)) <= FARTHEST).all():  # NaN is not, either
        raise ValueError("a coordinate is no number, or lies beyond any slide")


def valid(polygons: list[shapely.Geometry], path: Path) -> np.ndarray:
    """The polygons (P,), made valid where their outline crosses itself, with a warning that names the file.

    Raises:
        UserError: a coordinate that no slide has.
    """
    shapes = np.array(polygons, dtype=object)
    try:
        check_coordinates(shapes)
    except ValueError as error:
        raise UserError(f"annotation {str(path)!r}: {error}") from error
    broken = ~shapely.is_valid(shapes)
    if broken.any():
        warnings.warn(f"{str(path)!r}: {broken.sum()} outlines cross themselves and were repaired", stacklevel=4)
        shapes[broken] = shapely.make_valid(shapes[broken])
    return shapes


def areas_of(geometries: shapely.Geometry | np.ndarray) -> np.ndarray:
    """The single polygons (P,) in geometries of any kind; points and lines are left out."""
    parts = shapely.get_parts(shapely.get_parts(geometries))
    return parts[shapely.get_type_id(parts) == shapely.GeometryType.POLYGON]
