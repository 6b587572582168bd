"""Planning of a slide: tissue, tiles and the tumour in them, before any tile is decoded."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from kd_mil.core.hashing import file_digest
from kd_mil.slides.annotations.annotations import read_annotation, tumour_fraction
from kd_mil.slides.extraction.store import StoredSlide
from kd_mil.slides.formats.reader import Slide
from kd_mil.slides.slide_content import slide_identity
from kd_mil.slides.slide_list import SlideEntry
from kd_mil.slides.tiles.cutting import Cutting
from kd_mil.slides.tiles.tiling import Tiles


@dataclass(frozen=True)
class PlannedSlide:
    """A slide of which everything is known but the features."""

    entry: SlideEntry
    tiles: Tiles
    tumour_fraction: np.ndarray | None
    """(N,) float32; None without annotation."""
    mpp_source: Literal["file", "mpp", "mpp_override"]
    """Who says what the slide's pixels measure: its file, or one of the settings."""
    features: np.ndarray | None = None
    """(N, D) where they were computed before."""


def slide_attributes(entry: SlideEntry, cutting: Cutting) -> dict[str, Any]:
    """The stored attributes of a slide that follow from the settings, its entry and its file; see `read_attributes`.

    Raises:
        OSError: the slide or its annotation cannot be read.
    """
    annotation = None if entry.annotation_path is None else file_digest(entry.annotation_path)
    return cutting.attributes() | {
        "mpp_override": cutting.override_of(entry),
        "annotation": annotation,
        "slide": slide_identity(entry.path),
    }


def plan_slide(entry: SlideEntry, cutting: Cutting, stored: StoredSlide | None = None) -> PlannedSlide:
    """Find tissue and lay tiles; with `stored`, only look up its tumour anew.

    Raises:
        UserError: a damaged slide, no resolution, or an annotation that cannot be read.
    """
    slide = cutting.open(entry)
    try:
        tiles = stored.tiles if stored else cutting.cut(slide)
        fraction = _tumour(entry, slide, tiles, cutting)
    finally:
        slide.close()
    source = cutting.mpp_source(entry, slide)
    return PlannedSlide(entry, tiles, fraction, source, stored.features if stored else None)


def _tumour(entry: SlideEntry, slide: Slide, tiles: Tiles, cutting: Cutting) -> np.ndarray | None:
    if entry.annotation_path is None:
        return None
    annotation = read_annotation(entry.annotation_path, slide, cutting.annotations)
    return tumour_fraction(annotation, tiles.coords, tiles.tile_size_level0)
