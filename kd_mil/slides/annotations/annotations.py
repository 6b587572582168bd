"""Tumour annotations of a slide, and the tumour area fraction of its tiles."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely

from kd_mil.core.checks import above
from kd_mil.core.errors import UserError
from kd_mil.slides.annotations import asap, imagescope
from kd_mil.slides.annotations.ndpa import glass_frame, read_ndpa
from kd_mil.slides.annotations.outlines import ClassifiedPolygons, areas_of
from kd_mil.slides.annotations.qupath import read_qupath_geojson
from kd_mil.slides.annotations.subdivision import subdivided
from kd_mil.slides.annotations.xml_files import xml_root
from kd_mil.slides.coverage import mask_coverage
from kd_mil.slides.formats.image_decoding import IMAGE_SUFFIXES
from kd_mil.slides.formats.label_masks import read_mask
from kd_mil.slides.formats.reader import Slide

OUTLINES = (".xml", ".ndpa", ".geojson", ".json")


@dataclass(frozen=True)
class AnnotationSettings:
    """What counts as tumour. Names are compared without regard to case.

    Raises:
        UserError: a mask resolution that is not positive.
    """

    positive_groups: Sequence[str] = ("_0", "_1", "Tumor", "metastases")
    """ASAP groups that outline tumour."""
    subtract_groups: Sequence[str] = ("_2", "Exclusion", "None", "normal")
    """ASAP groups cut out of the tumour: in Camelyon, `_2` and `Exclusion` outline what is *not* tumour."""
    positive_classes: Sequence[str] = ("Tumor", "Tumour", "Metastasis", "Metastases")
    """Classes that outline tumour in QuPath, ImageScope (names of layers) and NDP.view (titles)."""
    geojson_in_bounds: bool = True
    """QuPath crops a bounded slide (MIRAX, Leica) and counts from the crop's corner; false = from the slide's."""
    mask_mpp: float | None = None
    """µm per pixel of label masks; null = the mask spans the whole slide, and its size tells."""
    mask_values: Sequence[int] = ()
    """Values that mark tumour in a label mask; empty = see `label_masks.positive_pixels`."""

    def __post_init__(self) -> None:
        if self.mask_mpp is not None:
            above("annotations.mask_mpp", self.mask_mpp)


@dataclass(frozen=True)
class PolygonAnnotation:
    """Tumour outlined by polygons."""

    polygons: np.ndarray
    """(P,) shapely polygons in level-0 pixels, disjoint but for their borders."""


@dataclass(frozen=True)
class MaskAnnotation:
    """Tumour painted into a mask whose corner is the slide's."""

    mask: np.ndarray
    """(height, width) bool."""
    downsample: float
    """Level-0 pixels per mask pixel."""
    extent: tuple[int, int]
    """(width, height) of the slide; what the last mask pixels cover beyond it is no tumour."""


Annotation = PolygonAnnotation | MaskAnnotation


def read_annotation(path: str | Path, slide: Slide, settings: AnnotationSettings | None = None) -> Annotation:
    """Read the tumour of a slide from outlines or from a label-mask image, told by the extension.

    Outlines are XML of ASAP or ImageScope, NDPA of NDP.view, or GeoJSON of QuPath.

    Raises:
        UserError: no such file, an unknown extension, a damaged or foreign file, or a mask that does not fit the slide.
    """
    path, settings = Path(path), settings or AnnotationSettings()
    suffix = path.suffix.lower()
    if not path.is_file():
        raise UserError(f"annotation {str(path)!r} of slide {slide.name!r} does not exist")
    if suffix in OUTLINES:
        return read_outlines(path, slide, settings)
    if suffix in IMAGE_SUFFIXES:
        return read_label_mask(path, slide, settings)
    raise UserError(
        f"annotation {str(path)!r} is neither .xml (ASAP, ImageScope), .ndpa, .geojson (QuPath) nor an image"
    )


def read_outlines(path: Path, slide: Slide, settings: AnnotationSettings) -> PolygonAnnotation:
    """Tumour outlined in a file of any of the programs; what lies beyond the slide is cut off."""
    suffix = path.suffix.lower()
    positive, subtract = settings.positive_classes, ()  # type: tuple[Sequence[str], Sequence[str]]
    if suffix == ".ndpa":
        found = read_ndpa(path, glass_frame(slide.properties, slide.dimensions, path))
    elif suffix != ".xml":
        found = read_qupath_geojson(path, slide.bounds[:2] if settings.geojson_in_bounds else (0, 0))
    elif (root := xml_root(path)).tag == imagescope.ROOT:
        found = imagescope.read_imagescope(root, path)
    else:
        found = asap.read_asap(root, path)
        positive, subtract = settings.positive_groups, settings.subtract_groups
    tumour = tumour_area_of(found, positive, subtract, path)
    return PolygonAnnotation(subdivided(areas_of(shapely.intersection(tumour, shapely.box(0, 0, *slide.dimensions)))))


def tumour_area_of(
    found: ClassifiedPolygons, positive: Sequence[str], subtract: Sequence[str], path: Path
) -> shapely.Geometry:
    """Union of the positive polygons less the subtracted ones; warns where a non-empty file has no positive one."""
    chosen, removed = found.of(positive), found.of(subtract)
    if len(found.polygons) > 0 and len(chosen) == 0:
        names = sorted(set(found.names))
        warnings.warn(f"{str(path)!r} has no tumour: its classes are {names}, none of {list(positive)}", stacklevel=3)
    return shapely.difference(shapely.union_all(chosen), shapely.union_all(removed))


def read_label_mask(path: Path, slide: Slide, settings: AnnotationSettings) -> MaskAnnotation:
    """Read a label mask of the whole slide; of a pyramid, the finest level of moderate size.

    Raises:
        UserError: no single-channel image, or without `mask_mpp` a shape other than the slide's.
    """
    mask, reduced, _ = read_mask(path, settings.mask_values, "annotations.mask_values")
    if settings.mask_mpp is not None:
        return MaskAnnotation(mask, reduced * settings.mask_mpp / slide.mpp, slide.dimensions)
    across, down = slide.dimensions[0] / mask.shape[1], slide.dimensions[1] / mask.shape[0]
    # Reduced masks are a whole number of pixels wide, so the two may differ by what one pixel makes.
    if abs(across - down) > max(across / mask.shape[1], down / mask.shape[0]):
        raise UserError(
            f"mask {str(path)!r} ({mask.shape[1]} x {mask.shape[0]}) has not the shape of slide {slide.name!r} "
            f"({slide.dimensions[0]} x {slide.dimensions[1]}): give annotations.mask_mpp, or the slide's own mask"
        )
    return MaskAnnotation(mask, (across + down) / 2, slide.dimensions)


def tumour_fraction(annotation: Annotation, coords: np.ndarray, tile_size_level0: int) -> np.ndarray:
    """Area fraction (N,) float32 in [0, 1] of tumour in square tiles; exact.

    Args:
        annotation: The slide's tumour.
        coords: (N, 2) (x, y) of the tiles' top-left corners in level-0 pixels.
        tile_size_level0: Side of a tile in level-0 pixels.
    """
    if isinstance(annotation, MaskAnnotation):
        return mask_coverage(
            annotation.mask, (0, 0), annotation.downsample, coords, tile_size_level0, annotation.extent
        )
    corners = np.asarray(coords, dtype=np.float64)
    tiles = shapely.box(*corners.T, *(corners + tile_size_level0).T)
    tile, part = shapely.STRtree(annotation.polygons).query(tiles, predicate="intersects")
    polygons = annotation.polygons[part]
    shapely.prepare(annotation.polygons)
    area = np.full(len(tile), float(tile_size_level0) ** 2)
    edge = ~shapely.covers(polygons, tiles[tile])
    area[edge] = shapely.area(shapely.intersection(polygons[edge], tiles[tile[edge]]))
    total = np.bincount(tile, weights=area, minlength=len(tiles))
    return np.clip(total / tile_size_level0**2, 0, 1).astype(np.float32)
