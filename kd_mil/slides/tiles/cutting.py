"""How a slide is cut into tiles: the settings that decide it, and nothing else."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from kd_mil.core.checks import one_of
from kd_mil.slides.annotations.annotations import AnnotationSettings
from kd_mil.slides.formats.reader import BACKENDS, Slide, open_slide
from kd_mil.slides.slide_list import SlideEntry
from kd_mil.slides.tiles.tiling import TilingSettings
from kd_mil.slides.tiles.tissue import TissueSettings


@dataclass(frozen=True)
class Cutting:
    """How slides are read and cut into tiles."""

    tiling: TilingSettings
    tissue: TissueSettings = field(default_factory=TissueSettings)
    annotations: AnnotationSettings = field(default_factory=AnnotationSettings)
    mpp: float | None = None
    """um per level-0 pixel of slides whose list gives none; None = what the files say."""
    backend: str = "openslide"

    def open(self, entry: SlideEntry) -> Slide:
        """The slide of a list's entry."""
        return open_slide(entry.path, entry.mpp or self.mpp, self.backend)


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
        one_of("backend", self.backend, BACKENDS)

    def attributes(self) -> dict[str, Any]:
        """As `store` keeps them, equal for all slides."""
        groups = ("tiling", "tissue", "annotations")
        return {name: _listed(asdict(getattr(self, name))) for name in groups} | {"backend": self.backend}

    def mpp_of(self, entry: SlideEntry) -> float | None:
        """The resolution a user gave for a slide."""
        return self.mpp if entry.mpp is None else entry.mpp


def _listed(settings: dict[str, Any]) -> dict[str, Any]:
    """Tuples as the lists that JSON makes of them."""
    return {
        name: list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
        for name, value in settings.items()
    }
