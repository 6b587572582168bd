"""Outlines as Aperio ImageScope writes them, beside SVS slides."""

from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np
import shapely

from kd_mil.slides.annotations.outlines import ClassifiedPolygons, areas_of, valid
from kd_mil.slides.annotations.xml_files import finite_points

ROOT = "Annotations"
ELLIPSE = "2"
"""Type of a region given by two corners of the box around it."""
NOT_AREAS = ("3", "4", "5")
"""Types of regions that enclose nothing: arrows, rulers, open lines."""
ELLIPSE_POINTS = 180


def read_imagescope(root: Element, path: Path) -> ClassifiedPolygons:
    """The layers of an ImageScope file, each the union of its regions less its negative ones.

    Source: `Annotation[@Name]/Regions/Region[@Type, @NegativeROA]/Vertices/Vertex[@X, @Y]`, level-0 pixels. The class
    is the layer's `Name`, else its attribute `Description`; "None" where it has neither.

    Raises:
        UserError: a point without a finite position.
    """
    layers, names = [], []
    for number, layer in enumerate(root.iterfind("Annotation"), start=1):
        name = layer_name(layer)
        positive: list[shapely.Polygon] = []
        negative: list[shapely.Polygon] = []
        for region in layer.iterfind("Regions/Region"):
            ring = region_ring(region, f"layer {number} ({name})", path)
            if len(ring) >= 3:
                (negative if region.get("NegativeROA") == "1" else positive).append(shapely.Polygon(ring))
        drawn = shapely.union_all(valid(positive, path))
        areas = areas_of(shapely.difference(drawn, shapely.union_all(valid(negative, path))))
        layers += list(areas)
        names += [name] * len(areas)
    return ClassifiedPolygons(np.array(layers, dtype=object), names)


def layer_name(layer: Element) -> str:
    """Name of a layer, as its author typed it."""
    described = (attribute.get("Value") for attribute in layer.iterfind("Attributes/Attribute[@Name='Description']"))
    return next((name.strip() for name in (layer.get("Name"), *described) if name and name.strip()), "None")


def region_ring(region: Element, name: str, path: Path) -> np.ndarray:
    """Points (K, 2) around a region; none around what encloses nothing."""
    vertices = region.iterfind("Vertices/Vertex")
    points = finite_points(((vertex.get("X"), vertex.get("Y")) for vertex in vertices), name, path)
    if region.get("Type") in NOT_AREAS:
        return points[:0]
    if region.get("Type") == ELLIPSE and len(points) == 2:
        angle = np.linspace(0, 2 * np.pi, ELLIPSE_POINTS, endpoint=False)
        return points.mean(0) + np.stack([np.cos(angle), np.sin(angle)], 1) * np.abs(points[1] - points[0]) / 2
    return points
