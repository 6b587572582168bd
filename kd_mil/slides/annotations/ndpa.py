"""Outlines as Hamamatsu's NDP.view writes them, beside NDPI slides (`NAME.ndpi.ndpa`)."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element

import numpy as np
import shapely

from kd_mil.core.errors import UserError
from kd_mil.slides.annotations.outlines import ClassifiedPolygons, valid
from kd_mil.slides.annotations.xml_files import finite_points, xml_root

OFFSET = "hamamatsu.{}OffsetFromSlideCentre"
PIXEL = "openslide.mpp-{}"
CIRCLE_POINTS = 180


class GlassFrame(NamedTuple):
    """Where the scanned image lies on its glass: NDP.view counts nanometres from the middle of the glass."""

    centre: tuple[float, float]
    """(x, y) of the middle of level 0, nanometres."""
    pixel: tuple[float, float]
    """Nanometres per level-0 pixel, across and down."""
    size: tuple[int, int]
    """(width, height) of level 0, pixels."""

    def to_pixels(self, points: np.ndarray) -> np.ndarray:
        """Points (K, 2) in nanometres as level-0 pixels."""
        return (points - self.centre) / self.pixel + np.array(self.size) / 2


def glass_frame(properties: Mapping[str, str], size: tuple[int, int], path: Path) -> GlassFrame:
    """The frame that a slide's own properties state; a resolution given by the user does not move outlines.

    Raises:
        UserError: the slide does not say where it lies: it is no Hamamatsu slide.
    """
    keys = [OFFSET.format("X"), OFFSET.format("Y"), PIXEL.format("x"), PIXEL.format("y")]
    missing = [key for key in keys if key not in properties]
    if missing:
        raise UserError(
            f"annotation {str(path)!r} counts nanometres from the middle of the glass, but its slide does not state "
            f"{missing[0]}: it is no Hamamatsu slide; export the outlines as GeoJSON"
        )
    x, y, across, down = (float(properties[key]) for key in keys)
    return GlassFrame((x, y), (across * 1000, down * 1000), size)


def read_ndpa(path: Path, frame: GlassFrame) -> ClassifiedPolygons:
    """The closed outlines and circles of an NDPA file; the class is the `title`.

    Source: `ndpviewstate/annotation[@type]/pointlist/point/{x, y}`, or `{x, y, radius}` of a circle, nanometres. Open
    lines, rulers, pins and pointers have no area and are left out.

    Raises:
        UserError: no NDPA file, positions in another unit, or a point without a finite position.
    """
    root = xml_root(path)
    if root.tag != "annotations":
        raise UserError(f"annotation {str(path)!r} is XML but no NDPA: its root is {root.tag!r}, not 'annotations'")
    rings, names = [], []
    for view in root.iterfind("ndpviewstate"):
        name = (view.findtext("title") or "").strip() or "None"
        if view.findtext("coordformat", "nanometers").strip().lower() != "nanometers":
            raise UserError(f"annotation {str(path)!r}: {name!r} has coordinates in {view.findtext('coordformat')!r}")
        for annotation in view.iterfind("annotation"):
            ring = _ring(annotation, name, path)
            if len(ring) >= 3:
                rings.append(shapely.Polygon(frame.to_pixels(ring)))
                names.append(name)
    return ClassifiedPolygons(valid(rings, path), names)


def _ring(annotation: Element, name: str, path: Path) -> np.ndarray:
    """Points (K, 2) around an annotation, nanometres; none around what encloses nothing."""
    if annotation.get("type") == "circle":
        x, y, radius = (annotation.findtext(part) for part in ("x", "y", "radius"))
        centre, reach = finite_points([(x, y), (radius, radius)], name, path)
        angle = np.linspace(0, 2 * np.pi, CIRCLE_POINTS, endpoint=False)
        return centre + np.stack([np.cos(angle), np.sin(angle)], 1) * reach
    if annotation.findtext("closed", "1").strip() == "0" or annotation.get("type") != "freehand":
        return np.empty((0, 2))
    points = annotation.iterfind("pointlist/point")
    return finite_points(((point.findtext("x"), point.findtext("y")) for point in points), name, path)
