"""Outlines as QuPath exports them (GeoJSON, RFC 7946), with what other programs put into such files left out."""

import json
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import shapely
from shapely.geometry import shape

from kd_mil.core.errors import UserError
from kd_mil.slides.annotations.outlines import ClassifiedPolygons, check_coordinates, valid

AREAS = ("Polygon", "MultiPolygon")
MALFORMED = (
    *(LookupError, TypeError, ValueError, ArithmeticError, AttributeError),
    *(RecursionError, shapely.errors.ShapelyError),
)
"""What a feature raises that is none."""
KIND_IN_ID = re.compile(r"Path(\w+)Object|(TMACore)Object")
"""QuPath up to 0.2.3, and WSInfer, write the kind of an object into the feature's `id`."""


def read_qupath_geojson(path: Path, origin: tuple[int, int] = (0, 0)) -> ClassifiedPolygons:
    """Read the outlines of a QuPath export: a FeatureCollection, a list of features, one feature, or a bare geometry.

    Polygons and multipolygons count, those within a GeometryCollection too; the class is `properties.classification`.
    Objects that were measured or predicted, not drawn (`object_kind`), points, lines, and features whose geometry is
    null, absent or empty are left out, with one warning that counts them.

    Args:
        path: The file; UTF-8 or UTF-16, with or without a byte-order mark.
        origin: Level-0 position from which the file counts.

    Raises:
        UserError: no JSON, or no GeoJSON.
    """
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UserError(f"annotation {str(path)!r} is not JSON ({error})") from error
    polygons, names, left_out = [], [], Counter[str]()
    for number, feature in enumerate(features_of(content, path)):
        try:
            kind = object_kind(feature)
            if kind != "annotation":
                left_out[kind] += 1
                continue
            found, name = list(areas_in(geometry_of(feature), left_out)), class_of(feature)
        except MALFORMED as error:
            reason = "nested too deep" if isinstance(error, RecursionError) else repr(error)
            raise UserError(f"annotation {str(path)!r}: feature {number} is no GeoJSON feature ({reason})") from error
        polygons += [shapely.transform(area, lambda points: points + origin) for area in found]
        names += [name] * len(found)
    if left_out:
        listed = ", ".join(f"{count} {kind}" for kind, count in sorted(left_out.items()))
        warnings.warn(f"{str(path)!r}: objects that are no annotated areas were left out: {listed}", stacklevel=3)
    return ClassifiedPolygons(valid(polygons, path), names)


def features_of(content: Any, path: Path) -> Iterator[Any]:
    """The features of a parsed GeoJSON file in any of its forms."""
    kind = content.get("type") if isinstance(content, dict) else None
    if kind == "FeatureCollection":
        content = content.get("features")
    elif kind == "Feature":
        content = [content]
    elif kind in AREAS or kind == "GeometryCollection":
        content = [{"type": "Feature", "geometry": content}]
    if not isinstance(content, list):
        raise UserError(
            f"annotation {str(path)!r} is JSON but no GeoJSON: it needs a FeatureCollection, a list of features or one"
        )
    return iter(content)


def object_kind(feature: dict[str, Any]) -> str:
    """`annotation`, or the kind of a QuPath object that nobody drew: detection, cell, tile, tmacore, root.

    It stands in `properties.objectType` (QuPath from 0.4 on), in `properties.object_type` (0.3) or in the feature's
    `id` (`PathDetectionObject`, `PathCellObject`, `PathTileObject`: up to 0.2.3, and WSInfer). Features without any
    are drawn.
    """
    properties = feature.get("properties") or {}
    stated = [properties.get("objectType"), properties.get("object_type")]
    in_id = KIND_IN_ID.fullmatch(str(feature.get("id", "")))
    stated.append(in_id and (in_id[1] or in_id[2]))
    kinds = [str(kind).replace("_", "").lower() for kind in stated if kind]
    return next((kind for kind in kinds if kind != "annotation"), "annotation")


def geometry_of(feature: dict[str, Any]) -> dict[str, Any] | None:
    """The geometry of a feature; None where it is null or, against the standard, absent."""
    return feature.get("geometry") if feature.get("type") == "Feature" else feature["geometry"]


def areas_in(geometry: dict[str, Any] | None, left_out: Counter[str]) -> Iterator[shapely.Geometry]:
    """The polygons and multipolygons of a GeoJSON geometry; what else there is is counted in `left_out`."""
    if geometry is None:
        left_out["without geometry"] += 1
    elif geometry["type"] == "GeometryCollection":
        for part in geometry["geometries"]:
            yield from areas_in(part, left_out)
    elif geometry["type"] in AREAS:
        area = shape(geometry)
        if area.is_empty:
            left_out["without points"] += 1
            return
        check_coordinates(area)
        yield area
    else:
        left_out[str(geometry["type"])] += 1


def class_of(feature: dict[str, Any]) -> str:
    """The classification of a QuPath object in any of its spellings; "None" where there is none."""
    classification = (feature.get("properties") or {}).get("classification") or "None"
    if isinstance(classification, dict):
        classification = classification.get("name") or ": ".join(classification.get("names") or ["None"])
    return str(classification)
