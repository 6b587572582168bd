"""Outlines drawn by pathologists, as ASAP and QuPath write them."""

import json
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree.ElementTree import Element, ParseError

import numpy as np
import shapely
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import parse
from shapely.geometry import shape

from kd_mil.core.errors import UserError

NOT_OUTLINES = ("detection", "cell", "tile", "tmaCore")
"""QuPath objects that are measured or predicted, not drawn."""
NOT_AREAS = ("Dot", "PointSet", "Measurement")
"""Types of ASAP annotations that enclose nothing."""
MALFORMED = (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, shapely.errors.ShapelyError)
"""What a feature raises that is none."""


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


def read_asap_xml(path: Path) -> ClassifiedPolygons:
    """Read the outlines of an ASAP file, the format of Camelyon16/17; the class is `PartOfGroup`.

    Source: `Annotations/Annotation[@PartOfGroup]/Coordinates/Coordinate[@X, @Y]`, level-0 pixels. Dots, point sets,
    measurements and outlines of fewer than three points have no area and are left out.

    Raises:
        UserError: no XML, XML with entities, or no ASAP file.
    """
    try:
        root = parse(path).getroot()
    except (ParseError, ValueError, LookupError) as error:  # of entities, of encodings it cannot read
        reason = "defines entities" if isinstance(error, DefusedXmlException) else str(error)
        raise UserError(f"annotation {str(path)!r} is not safe, well-formed XML ({reason}): export it again") from error
    if root.find("Annotations") is None:
        raise UserError(f"annotation {str(path)!r} is XML but not ASAP's: no ASAP_Annotations/Annotations in it")
    rings, names = [], []
    for annotation in root.iterfind("Annotations/Annotation"):
        ring = asap_ring(annotation, path)
        if len(ring) >= 3 and annotation.get("Type") not in NOT_AREAS:
            rings.append(shapely.Polygon(ring))
            names.append(annotation.get("PartOfGroup", "None"))
    return ClassifiedPolygons(repaired(rings, path), names)


def asap_ring(annotation: Element, path: Path) -> np.ndarray:
    """Points (K, 2) of one ASAP annotation; UserError where a coordinate is missing or no finite number."""
    points = annotation.iterfind("Coordinates/Coordinate")
    try:
        ring = np.array([(float(point.attrib["X"]), float(point.attrib["Y"])) for point in points]).reshape(-1, 2)
    except (KeyError, ValueError):
        ring = np.array([[np.nan, np.nan]])
    if not np.isfinite(ring).all():
        raise UserError(f"annotation {str(path)!r}: {annotation.get('Name')!r} has a point without a finite X and Y")
    return ring


def read_qupath_geojson(path: Path, origin: tuple[int, int] = (0, 0)) -> ClassifiedPolygons:
    """Read the outlines of a QuPath export: a FeatureCollection, a list of features, or one feature.

    Polygons and multipolygons count, whose `properties.objectType` is `annotation` or absent; the class is
    `properties.classification`. Points, lines, detections and cells are left out with a warning.

    Args:
        path: The file.
        origin: Level-0 position from which the file counts.

    Raises:
        UserError: no JSON, or no GeoJSON.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"annotation {str(path)!r} is not JSON ({error})") from error
    polygons, names, skipped = [], [], 0
    for number, feature in enumerate(features_of(content, path)):
        try:
            geometry, name = outline_of(feature)
        except MALFORMED as error:
            raise UserError(f"annotation {str(path)!r}: feature {number} is no GeoJSON feature ({error!r})") from error
        if geometry is None:
            skipped += 1
            continue
        polygons.append(shapely.transform(geometry, lambda points: points + origin))
        names.append(name)
    if skipped:
        warnings.warn(f"{str(path)!r}: {skipped} objects that are no annotated areas were left out", stacklevel=3)
    return ClassifiedPolygons(repaired(polygons, path), names)


def features_of(content: Any, path: Path) -> Iterator[Any]:
    """The features of a parsed GeoJSON file in any of the three forms."""
    if isinstance(content, dict) and content.get("type") == "FeatureCollection":
        content = content.get("features")
    elif isinstance(content, dict) and content.get("type") == "Feature":
        content = [content]
    if not isinstance(content, list):
        raise UserError(
            f"annotation {str(path)!r} is JSON but no GeoJSON: it needs a FeatureCollection, a list of features or one"
        )
    return iter(content)


def outline_of(feature: dict[str, Any]) -> tuple[shapely.Geometry | None, str]:
    """Area and class of one feature; None for anything but a drawn area."""
    properties = feature.get("properties") or {}
    geometry = shape(feature["geometry"])
    if not np.isfinite(shapely.get_coordinates(geometry)).all():
        raise ValueError("a coordinate is no finite number")
    drawn = properties.get("objectType", "annotation") not in NOT_OUTLINES
    if not drawn or geometry.geom_type not in ("Polygon", "MultiPolygon"):
        return None, ""
    classification = properties.get("classification") or "None"
    if isinstance(classification, dict):
        classification = classification.get("name") or ": ".join(classification["names"])
    return geometry, str(classification)


def repaired(polygons: list[shapely.Geometry], path: Path) -> np.ndarray:
    """The polygons (P,), made valid where their outline crosses itself, with a warning."""
    shapes = np.array(polygons, dtype=object)
    broken = ~shapely.is_valid(shapes)
    if broken.any():
        warnings.warn(f"{str(path)!r}: {broken.sum()} outlines cross themselves and were repaired", stacklevel=4)
        shapes[broken] = shapely.make_valid(shapes[broken])
    return shapes
