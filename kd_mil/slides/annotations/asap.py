"""Outlines as ASAP writes them, the format of Camelyon16 and Camelyon17."""

from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np
import shapely

from kd_mil.core.errors import UserError
from kd_mil.slides.annotations.outlines import ClassifiedPolygons, valid
from kd_mil.slides.annotations.xml_files import finite_points

NOT_AREAS = ("Dot", "PointSet", "Measurement")
"""Types of annotations that enclose nothing."""


def read_asap(root: Element, path: Path) -> ClassifiedPolygons:
    """The outlines of an ASAP file; the class is `PartOfGroup`.

    Source: `Annotations/Annotation[@PartOfGroup]/Coordinates/Coordinate[@X, @Y]`, level-0 pixels. Dots, point sets,
    measurements and outlines of fewer than three points have no area and are left out.

    Raises:
        UserError: XML of another program, or a point without a finite position.
    """
    if root.find("Annotations") is None:
        raise UserError(
            f"annotation {str(path)!r} is XML but neither ASAP's nor ImageScope's: no Annotations in {root.tag!r}"
        )
    rings, names = [], []
    for annotation in root.iterfind("Annotations/Annotation"):
        ring = _ring(annotation, path)
        if len(ring) >= 3 and annotation.get("Type") not in NOT_AREAS:
            rings.append(shapely.Polygon(ring))
            names.append(annotation.get("PartOfGroup", "None"))
    return ClassifiedPolygons(valid(rings, path), names)


def _ring(annotation: Element, path: Path) -> np.ndarray:
    points = annotation.iterfind("Coordinates/Coordinate")
    return finite_points(((point.get("X"), point.get("Y")) for point in points), annotation.get("Name"), path)
