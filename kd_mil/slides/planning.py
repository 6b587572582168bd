"""What is to be read of a slide: settings, tissue, tiles and the tumour in them, before any tile is decoded."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kd_mil.errors import UserError
from kd_mil.slides.annotations import AnnotationSettings, read_annotation, tumour_fraction
from kd_mil.slides.reader import BACKENDS, Slide, open_slide
from kd_mil.slides.slide_list import SlideEntry
from kd_mil.slides.store import StoredSlide
from kd_mil.slides.tiling import Tiles, TilingSettings, tile_grid
from kd_mil.slides.tissue import TissueSettings, find_tissue


@dataclass(frozen=True)
class ReadingSettings:
    """How slides become tiles.

    Raises:
        UserError: an unknown backend.
    """

    tiling: TilingSettings
    tissue: TissueSettings = field(default_factory=TissueSettings)
    annotations: AnnotationSettings = field(default_factory=AnnotationSettings)
    backend: str = "openslide"
    mpp: float | None = None
    """um per level-0 pixel of slides whose entry has none of its own; None = what the file says."""

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise UserError(f"unknown slide backend {self.backend!r}: take one of {', '.join(BACKENDS)}")

    def attributes(self) -> dict[str, Any]:
        """As `store` keeps them, equal for all slides."""
        groups = ("tiling", "tissue", "annotations")
        return {name: _listed(asdict(getattr(self, name))) for name in groups} | {"backend": self.backend}

    def mpp_of(self, entry: SlideEntry) -> float | None:
        """The resolution a user gave for a slide."""
        return self.mpp if entry.mpp is None else entry.mpp


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


def file_hash(path: Path) -> str:
    """First 16 hex digits of the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _listed(settings: dict[str, Any]) -> dict[str, Any]:
    """Tuples as the lists that JSON makes of them."""
    return {
        name: list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
        for name, value in settings.items()
    }
