"""Tissue as somebody else outlined it: learned tissue masks, quality masks, regions of interest."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely
from PIL import Image, ImageDraw

from kd_mil.core.checks import above
from kd_mil.core.errors import UserError
from kd_mil.slides.annotations.annotations import AnnotationSettings, read_label_mask
from kd_mil.slides.annotations.outlines import areas_of
from kd_mil.slides.annotations.qupath import read_qupath_geojson
from kd_mil.slides.formats.reader import Slide
from kd_mil.slides.slide_list import SlideEntry
from kd_mil.slides.tiles.tissue import TissueMask, mask_frame

ENDINGS = (
    *(".geojson", ".json", "_contours.geojson"),
    *(".png", ".tif", ".tiff", "_mask.png", "_MASK.png"),
)
"""What follows the id of a slide, or the name of its file: QuPath, TRIDENT, `kd_mil.extract`; HEST; masks; GrandQC."""


@dataclass(frozen=True)
class OutlineSettings:
    """Tissue is what a file of each slide outlines: GeoJSON, or a mask image that spans the whole slide.

    Raises:
        UserError: no folder, or a resolution that is not positive.
    """

    folder: str | None = None
    """Of the files, one a slide; see `ENDINGS`."""
    classes: Sequence[str] = ()
    """Classes of GeoJSON areas that count, without regard to case; empty = all."""
    exclude: Sequence[str] = ()
    """Classes that are cut out."""
    in_bounds: bool = True
    """GeoJSON counts from the scanned area, as QuPath's and `contours/` (MIRAX); false = from level 0's corner."""
    mask_values: Sequence[int] = ()
    """Values of a mask that are tissue; empty = see `label_masks.positive_pixels`."""
    mask_mpp: float | None = None
    """µm per pixel of masks; None = a mask spans the whole slide, and its size tells."""
    mpp: float = 4.0
    """Resolution at which outlines become a mask, µm per pixel."""

    def __post_init__(self) -> None:
        if not self.folder:
            raise UserError("tissue.folder= is not set: give the folder of the outlines (ID.geojson, ID.png)")
        above("tissue.mpp", self.mpp)

    def path_of(self, entry: SlideEntry) -> Path:
        """The file of a slide.

        Raises:
            UserError: none, or several.
        """
        folder = Path(str(self.folder))
        names = dict.fromkeys(name + end for name in (entry.slide_id, entry.path.name) for end in ENDINGS)
        found = [folder / name for name in names if (folder / name).is_file()]
        if len(found) == 1:
            return found[0]
        if found:
            listed = " and ".join(path.name for path in found)
            raise UserError(f"slide {entry.slide_id!r} has several outlines in {self.folder!r}: {listed}: keep one")
        raise UserError(f"slide {entry.slide_id!r} has no outlines in {self.folder!r}, as {entry.slide_id}.geojson")


def outlined_tissue(slide: Slide, entry: SlideEntry, settings: OutlineSettings) -> TissueMask:
    """The tissue that the file of a slide outlines; none at all is a warning, and kept with the mask.

    Raises:
        UserError: no file, a damaged or foreign one, or a mask of another shape than the slide's.
    """
    path = settings.path_of(entry)
    size, downsample = mask_frame(slide, settings.mpp)
    if path.suffix.lower() in (".geojson", ".json"):
        mask = drawn(outlined_area(path, slide, settings), slide.bounds[:2], downsample, size)
    else:
        how = AnnotationSettings(mask_mpp=settings.mask_mpp, mask_values=settings.mask_values)
        labels = read_label_mask(path, slide, how)
        mask = sampled(labels.mask, labels.downsample, slide.bounds[:2], downsample, size)
    doubts = () if mask.any() else (f"{path.name} outlines no tissue (settings under `tissue`)",)
    for doubt in doubts:
        warnings.warn(f"slide {slide.name!r}: {doubt}", stacklevel=2)
    return TissueMask(
        mask, slide.read(*slide.bounds[:2], size, slide.mpp * downsample), slide.bounds[:2], downsample, doubts
    )


def outlined_area(path: Path, slide: Slide, settings: OutlineSettings) -> shapely.Geometry:
    """The areas of a GeoJSON file that count, in level-0 pixels."""
    found = read_qupath_geojson(path, slide.bounds[:2] if settings.in_bounds else (0, 0))
    chosen = found.of(settings.classes) if settings.classes else found.polygons
    if len(found.polygons) and not len(chosen):
        names = sorted(set(found.names))
        warnings.warn(f"{str(path)!r}: its classes are {names}, none of {list(settings.classes)}", stacklevel=3)
    return shapely.difference(shapely.union_all(chosen), shapely.union_all(found.of(settings.exclude)))


def drawn(area: shapely.Geometry, origin: tuple[int, int], downsample: float, size: tuple[int, int]) -> np.ndarray:
    """Mask (height, width) bool of an area; `size` is (width, height), `origin` the level-0 corner of the mask."""
    image = Image.new("1", size)
    draw = ImageDraw.Draw(image)
    polygons = areas_of(np.array([area], dtype=object))
    for polygon in sorted(polygons, key=lambda one: -shapely.Polygon(one.exterior).area):  # islands after their lakes
        for number, ring in enumerate((polygon.exterior, *polygon.interiors)):
            # Pillow counts from the centres of pixels
            points = (shapely.get_coordinates(ring) - origin) / downsample - 0.5
            draw.polygon([tuple(point) for point in points.tolist()], fill=number == 0)
    return np.array(image)


def sampled(
    mask: np.ndarray, step: float, origin: tuple[int, int], downsample: float, size: tuple[int, int]
) -> np.ndarray:
    """A mask of the whole slide, a pixel for `step` level-0 pixels, at the pixels of another frame; nothing beyond."""
    columns, rows = (
        ((start + (np.arange(count) + 0.5) * downsample) / step).astype(int)
        for start, count in zip(origin, size, strict=True)
    )
    result = np.zeros(size[::-1], dtype=bool)
    inside = np.ix_(rows < mask.shape[0], columns < mask.shape[1])
    result[inside] = mask[np.ix_(rows[rows < mask.shape[0]], columns[columns < mask.shape[1]])]
    return result
