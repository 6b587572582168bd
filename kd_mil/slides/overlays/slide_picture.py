"""What a heat map needs of a slide: a thumbnail, where it lies, and the outlines of its tumour."""

from typing import NamedTuple

import numpy as np
import shapely
from skimage.measure import find_contours

from kd_mil.slides.annotations.annotations import Annotation, PolygonAnnotation
from kd_mil.slides.formats.reader import Slide


class SlidePicture(NamedTuple):
    """A slide reduced to a thumbnail."""

    thumbnail: np.ndarray
    """(h, w, 3) uint8."""
    downsample: float
    """Level-0 pixels per pixel of the thumbnail."""
    origin: tuple[int, int]
    """Level-0 (x, y) of the thumbnail's top-left corner."""
    truth: shapely.Geometry | None
    """Tumour in level-0 pixels, empty where there is none; None where nobody has drawn any."""


def picture_of(slide: Slide, annotation: Annotation | None, max_side: int) -> SlidePicture:
    """Thumbnail of the scanned area, longer side at most `max_side` pixels, with the annotated tumour."""
    x, y, width, _ = slide.bounds
    thumbnail = slide.thumbnail(max_side)
    truth = None if annotation is None else tumour_area(annotation)
    return SlidePicture(thumbnail, width / thumbnail.shape[1], (x, y), truth)


def tumour_area(annotation: Annotation) -> shapely.Geometry:
    """The annotated tumour as one geometry in level-0 pixels."""
    if isinstance(annotation, PolygonAnnotation):
        return shapely.union_all(annotation.polygons)
    padded = np.pad(annotation.mask, 1).astype(float)
    rings = [(ring[:, ::-1] - 0.5) * annotation.downsample for ring in find_contours(padded, 0.5)]
    # An even-odd fill: what lies within a hole's ring is cut out of the ring around it.
    area: shapely.Geometry = shapely.MultiPolygon()
    for ring in rings:
        area = shapely.symmetric_difference(area, shapely.Polygon(ring))
    return area
