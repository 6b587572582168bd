"""What an extraction shows of each slide: a picture of its tiles, and the outline of its tissue."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely
from PIL import Image

from kd_mil.core.atomic import atomic_path
from kd_mil.core.checks import at_least
from kd_mil.slides.formats.reader import Slide
from kd_mil.slides.overlays.geojson import PathClass, outline_annotations, write_geojson
from kd_mil.slides.overlays.mask_polygons import mask_polygons
from kd_mil.slides.overlays.tiling_picture import TilingPicture, draw_tiling
from kd_mil.slides.slide_list import SlideEntry
from kd_mil.slides.tiles.tiling import Tiles, TilingSettings, rejected_tiles
from kd_mil.slides.tiles.tissue import TissueMask

TISSUE = PathClass("Tissue", (0, 128, 0))
TOLERANCE = 1.0
"""Pixels of the mask by which outlines are simplified: they become some ten times smaller."""
QUALITY = 85
"""Of the JPEG files."""


@dataclass(frozen=True)
class Pictures:
    """Writes `out/qc/ID.jpg` and `out/contours/ID.geojson`.

    Raises:
        UserError: a side that is not positive.
    """

    out: Path
    side: int | None = 1024
    """Pixels of the longer side of a picture; None = no pictures."""
    contours: bool = True
    in_bounds: bool = True
    """Outlines count from the scanned area, as QuPath does; false = from level 0's corner."""

    def __post_init__(self) -> None:
        if self.side is not None:
            at_least("picture_side", self.side, 64)

    def write(
        self,
        slide: Slide,
        entry: SlideEntry,
        tissue: TissueMask,
        tiles: Tiles,
        tiling: TilingSettings,
        keep: bool = False,
    ) -> None:
        """Write what is asked for, of an open slide; with `keep`, what is there stays, for outlines may be edited.

        Raises:
            OSError: the folder cannot be written.
        """
        picture, contours = picture_path(self.out, entry.slide_id), contours_path(self.out, entry.slide_id)
        if self.side is not None and not (keep and picture.is_file()):
            drawn = tiling_picture(slide, entry, tissue, tiles, tiling, self.side)
            with atomic_path(picture) as path:
                draw_tiling(drawn).save(path, format="JPEG", quality=QUALITY)
        if self.contours and not (keep and contours.is_file()):
            write_contours(contours, entry, slide, tissue, self.in_bounds)

    def lacking(self, slide_ids: Iterable[str]) -> set[str]:
        """Those of the slides of which something that is asked for is not there; each folder is listed once."""
        asked = ((self.side is not None, picture_path), (self.contours, contours_path))
        ids, absent = set(slide_ids), set[str]()
        for place in (place for wanted, place in asked if wanted):
            folder = place(self.out, "").parent
            there = set(os.listdir(folder)) if folder.is_dir() else set()
            absent |= {one for one in ids if place(self.out, one).name not in there}
        return absent


def picture_path(out: Path, slide_id: str) -> Path:
    """Where the picture of a slide is."""
    return out / "qc" / f"{slide_id}.jpg"


def contours_path(out: Path, slide_id: str) -> Path:
    """Where the outlines of its tissue are."""
    return out / "contours" / f"{slide_id}.geojson"


def tiling_picture(
    slide: Slide, entry: SlideEntry, tissue: TissueMask, tiles: Tiles, tiling: TilingSettings, side: int
) -> TilingPicture:
    """What is drawn of a slide; its tissue's picture serves as thumbnail where that is large enough."""
    height, width = tissue.thumbnail.shape[:2]
    if max(height, width) >= side:
        size = (max(1, round(width * side / max(height, width))), max(1, round(height * side / max(height, width))))
        thumbnail = np.asarray(Image.fromarray(tissue.thumbnail).resize(size, reducing_gap=2.0))
    else:
        thumbnail = slide.thumbnail(side)
    return TilingPicture(
        thumbnail=thumbnail,
        origin=slide.bounds[:2],
        downsample=slide.bounds[2] / thumbnail.shape[1],
        mask=tissue.mask,
        kept=tiles.coords,
        rejected=rejected_tiles(slide, tissue, tiles, tiling),
        tile_size=tiles.tile_size_level0,
        mpp=slide.mpp,
        lines=words(entry, slide, tiles, tiling),
    )


def words(entry: SlideEntry, slide: Slide, tiles: Tiles, tiling: TilingSettings) -> list[str]:
    """What is written below a picture."""
    share = "" if tiles.tissue_share is None else f" · {tiles.tissue_share:.1%} of the scanned area is tissue"
    side = tiles.tile_size_level0 * slide.mpp
    return [
        f"{entry.slide_id}: {len(tiles.coords)} tiles kept, {tiles.rejected} rejected "
        f"(less than {tiling.min_tissue:.0%} tissue){share}",
        f"{tiles.tile_size} pixels at {tiles.mpp:g} µm ({tiles.target_magnification:g}x), {side:.0f} µm a side · "
        f"slide {slide.dimensions[0]} x {slide.dimensions[1]} pixels at {slide.mpp:g} µm",
        *(f"look at: {remark}" for remark in tiles.remarks),
    ]


def write_contours(path: Path, entry: SlideEntry, slide: Slide, tissue: TissueMask, in_bounds: bool) -> None:
    """The outlines of the tissue as locked annotations for QuPath, in level-0 pixels, with their area in mm²."""
    origin = np.subtract(tissue.origin, slide.bounds[:2] if in_bounds else (0, 0))
    polygons = [
        shapely.transform(polygon, lambda points: np.rint(points * tissue.downsample + origin))
        for polygon in mask_polygons(tissue.mask, tolerance=TOLERANCE)
    ]
    areas = [{"area mm2": round(polygon.area * (slide.mpp / 1000) ** 2, 4)} for polygon in polygons]
    write_geojson(path, outline_annotations(entry.slide_id, "tissue", polygons, areas, TISSUE))
