"""Outlines that people draw: kept as GeoJSON that `data=slides` reads as annotations, and QuPath."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import shapely

from kd_mil.core.checks import check_cell, check_id
from kd_mil.core.errors import UserError
from kd_mil.core.hashing import digest
from kd_mil.slides.annotations.qupath import read_qupath_geojson
from kd_mil.slides.overlays.geojson import TUMOUR, PathClass, outline_annotations, write_geojson

CUT_OUT = "cut out"
"""Kind of an outline that is taken away from the others: a hole."""
DECIMALS = 2
"""Of the pixels in which corners are kept."""
LEAST_AREA = 1.0
"""Pixels of level 0; smaller shapes are slips of the hand."""


class Drawn(NamedTuple):
    """One closed outline."""

    kind: str
    """Name of a class, or `CUT_OUT`."""
    points: np.ndarray
    """(n, 2) in level-0 pixels."""


@dataclass(frozen=True)
class Drawings:
    """The outlines of the slides of one folder, a file each.

    Args of its methods: `origin`, level-0 (x, y) from which the file counts, as QuPath does for slides with bounds.
    """

    folder: Path

    def path(self, slide_id: str) -> Path:
        """Where the outlines of a slide are.

        Raises:
            UserError: an id that cannot name a file.
        """
        check_id(slide_id, str(self.folder))
        return self.folder / f"{slide_id}.geojson"

    def version(self, slide_id: str) -> str | None:
        """Changes when the file does; None where there is none."""
        path = self.path(slide_id)
        return digest(path.read_bytes().hex()) if path.is_file() else None

    def load(self, slide_id: str, origin: tuple[int, int]) -> list[Drawn]:
        """The outlines of a slide: rings of its areas, with their holes as `CUT_OUT`.

        Raises:
            UserError: a damaged file.
        """
        path = self.path(slide_id)
        if not path.is_file():
            return []
        found = read_qupath_geojson(path, origin)
        named = zip(found.polygons, found.names, strict=True)
        return [ring for polygon, name in named for ring in rings(polygon, name)]

    def save(
        self,
        slide_id: str,
        drawn: Iterable[Drawn],
        origin: tuple[int, int],
        mpp: float | None,
        seen: str | None,
    ) -> Path:
        """Write the outlines of a slide.

        Args:
            slide_id: the slide.
            drawn: all its outlines.
            origin: see above.
            mpp: µm per level-0 pixel, for areas in mm².
            seen: the `version` that the person started from.

        Raises:
            UserError: somebody else has saved meanwhile, or a class that cannot stand in a table.
        """
        if self.version(slide_id) != seen:
            raise UserError("somebody has saved other outlines of this slide meanwhile: reload, and draw yours again")
        features = []
        for name, polygons in areas(drawn).items():
            shown = [shapely.transform(polygon, lambda points: points - origin) for polygon in polygons]
            path_class = TUMOUR if name == TUMOUR.name else PathClass(name, (0, 90, 200))
            features += list(outline_annotations(slide_id, f"drawn/{name}", shown, _sizes(polygons, mpp), path_class))
        write_geojson(self.path(slide_id), features)
        return self.path(slide_id)


def areas(drawn: Iterable[Drawn]) -> dict[str, list[shapely.Polygon]]:
    """What the outlines of each class cover, less what is cut out; disjoint valid polygons in level-0 pixels.

    Raises:
        UserError: a class that cannot stand in a table.
    """
    by_kind: dict[str, list[shapely.Geometry]] = {}
    for kind, points in drawn:
        check_cell("class", kind, "drawing")
        if len(points) >= 3:
            shape = shapely.Polygon(np.round(points, DECIMALS))
            by_kind.setdefault(kind, []).append(shapely.make_valid(shape))
    holes = shapely.union_all(by_kind.pop(CUT_OUT, []))
    covered = {kind: shapely.difference(shapely.union_all(shapes), holes) for kind, shapes in by_kind.items()}
    return {kind: [part for part in _polygons(area) if part.area >= LEAST_AREA] for kind, area in covered.items()}


def rings(area: shapely.Geometry, kind: str) -> Iterator[Drawn]:
    """The outlines of an area: outer ones of its kind, holes as `CUT_OUT`; without the repeated last point."""
    for polygon in _polygons(area):
        yield Drawn(kind, shapely.get_coordinates(polygon.exterior)[:-1])
        for hole in polygon.interiors:
            yield Drawn(CUT_OUT, shapely.get_coordinates(hole)[:-1])


def _polygons(area: shapely.Geometry) -> Iterator[shapely.Polygon]:
    for part in shapely.get_parts(area):
        if part.geom_type == "Polygon":
            yield part
        elif part.geom_type in ("MultiPolygon", "GeometryCollection"):
            yield from _polygons(part)


def _sizes(polygons: list[shapely.Polygon], mpp: float | None) -> list[dict[str, float]]:
    if mpp is None:
        return [{"area px^2": polygon.area} for polygon in polygons]
    return [{"area mm2": round(polygon.area * (mpp / 1000) ** 2, 6)} for polygon in polygons]
