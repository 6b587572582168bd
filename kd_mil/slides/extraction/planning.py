"""Planning of a slide: tissue, tiles and the tumour in them, before any tile is decoded."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kd_mil.core.hashing import file_digest
from kd_mil.slides.annotations.annotations import read_annotation, tumour_fraction
from kd_mil.slides.extraction.pictures import Pictures
from kd_mil.slides.extraction.store import StoredSlide
from kd_mil.slides.formats.reader import Slide
from kd_mil.slides.remote_slides import remote_identity
from kd_mil.slides.slide_content import slide_identity
from kd_mil.slides.slide_list import SlideEntry, require_files
from kd_mil.slides.tiles.cutting import Cutting
from kd_mil.slides.tiles.stain import Macenko, StainMap
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
    stain: StainMap | None = None
    """Normalises the tiles before they are encoded."""
    stain_matrix: list[list[float]] | None = None
    """Of `stain`, or of the one by which the features were computed before."""
    copy: Path | None = None
    """Where its pixels are read; None = where the entry says."""


def slide_attributes(entry: SlideEntry, cutting: Cutting) -> dict[str, Any]:
    """The stored attributes of a slide that follow from the settings, its entry and its file; see `read_attributes`.

    Raises:
        UserError: the slide, its annotation or its outlines are not there.
        OSError: one of them cannot be read.
    """
    require_files(entry)
    annotation = None if entry.annotation_path is None else file_digest(entry.annotation_path)
    return cutting.attributes() | {
        "mpp_override": cutting.override_of(entry),
        "annotation": annotation,
        "outlines": None if (outlines := cutting.outlines_of(entry)) is None else file_digest(outlines),
        "slide": slide_identity(entry.path) if entry.remote is None else remote_identity(entry.remote),
    }


def plan_slide(
    entry: SlideEntry,
    cutting: Cutting,
    stored: StoredSlide | None = None,
    pictures: Pictures | None = None,
    normalisation: Macenko | None = None,
) -> PlannedSlide:
    """Find tissue and lay tiles, draw what was found, tell the dyes; with `stored`, only look up its tumour anew.

    Raises:
        UserError: a damaged slide, no resolution, or an annotation that cannot be read.
    """
    slide = cutting.open(entry)
    try:
        tiles, tissue = (stored.tiles, None) if stored else cutting.cut_with_tissue(slide, entry)
        fraction = _tumour(entry, slide, tiles, cutting)
        if pictures is not None and tissue is not None:
            pictures.write(slide, entry, tissue, tiles, cutting.tiling)
        stain = None
        if normalisation is not None and stored is None and len(tiles.coords):
            stain = normalisation.of_slide(slide, tiles)
    finally:
        slide.close()
    source = cutting.mpp_source(entry, slide)
    if stored is not None:
        matrix = stored.attributes.get("stain_matrix")
        return PlannedSlide(entry, tiles, fraction, source, stored.features, stain_matrix=matrix)
    return PlannedSlide(entry, tiles, fraction, source, stain=stain, stain_matrix=stain.matrix if stain else None)


def _tumour(entry: SlideEntry, slide: Slide, tiles: Tiles, cutting: Cutting) -> np.ndarray | None:
    if entry.annotation_path is None:
        return None
    annotation = read_annotation(entry.annotation_path, slide, cutting.annotations)
    return tumour_fraction(annotation, tiles.coords, tiles.tile_size_level0)
