"""What is to be read of a slide: settings, tissue, tiles and the tumour in them, before any tile is decoded."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from kd_mil.core.hashing import file_hash
from kd_mil.slides.annotations.annotations import read_annotation, tumour_fraction
from kd_mil.slides.extraction.store import StoredSlide
from kd_mil.slides.formats.reader import Slide, open_slide
from kd_mil.slides.slide_list import SlideEntry
from kd_mil.slides.tiles.cutting import ReadingSettings
from kd_mil.slides.tiles.tiling import Tiles, tile_grid
from kd_mil.slides.tiles.tissue import find_tissue


@dataclass(frozen=True)
class PlannedSlide:
    """A slide of which everything is known but the features."""

    entry: SlideEntry
    tiles: Tiles
    tumour_fraction: np.ndarray | None
    """(N,) float32; None without annotation."""
    features: np.ndarray | None = None
    """(N, D) where they were computed before."""


def slide_attributes(entry: SlideEntry, settings: ReadingSettings) -> dict[str, Any]:
    """What of a slide's stored attributes follows from the settings and from its entry."""
    annotation = None if entry.annotation_path is None else file_hash(entry.annotation_path)
    return settings.attributes() | {"mpp_override": settings.mpp_of(entry), "annotation": annotation}


def plan_slide(entry: SlideEntry, settings: ReadingSettings, stored: StoredSlide | None = None) -> PlannedSlide:
    """Find tissue and lay tiles; with `stored`, only look up its tumour anew.

    Raises:
        UserError: a damaged slide, no resolution, or an annotation that cannot be read.
    """
    slide = open_slide(entry.path, settings.mpp_of(entry), settings.backend)
    try:
        tiles = stored.tiles if stored else tile_grid(slide, find_tissue(slide, settings.tissue), settings.tiling)
        fraction = _tumour(entry, slide, tiles, settings)
    finally:
        slide.close()
    return PlannedSlide(entry, tiles, fraction, stored.features if stored else None)


def _tumour(entry: SlideEntry, slide: Slide, tiles: Tiles, settings: ReadingSettings) -> np.ndarray | None:
    if entry.annotation_path is None:
        return None
    annotation = read_annotation(entry.annotation_path, slide, settings.annotations)
    return tumour_fraction(annotation, tiles.coords, tiles.tile_size_level0)
