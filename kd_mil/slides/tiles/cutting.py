"""How a slide is cut into tiles: the settings that decide it, and nothing else."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from kd_mil.core.checks import above
from kd_mil.slides.annotations.annotations import AnnotationSettings
from kd_mil.slides.formats.reader import Slide, open_slide, reader_class
from kd_mil.slides.slide_list import SlideEntry
from kd_mil.slides.tiles.tiling import Tiles, TilingSettings, tile_grid
from kd_mil.slides.tiles.tissue import TissueSettings, find_tissue


@dataclass(frozen=True)
class Cutting:
    """How slides are read and cut into tiles, the same for training, extraction and prediction.

    Raises:
        UserError: an unknown backend, or a resolution that is no positive number.
    """

    tiling: TilingSettings
    tissue: TissueSettings = field(default_factory=TissueSettings)
    annotations: AnnotationSettings = field(default_factory=AnnotationSettings)
    mpp: float | None = None
    """µm per level-0 pixel of slides that state neither that nor a magnification."""
    backend: str = "openslide"
    mpp_override: float | None = None
    """µm per level-0 pixel of all slides, whatever they state; the `mpp` of a slide's list goes before it."""

    def __post_init__(self) -> None:
        reader_class(self.backend)
        for name in ("mpp", "mpp_override"):
            if getattr(self, name) is not None:
                above(name, getattr(self, name))

    def override_of(self, entry: SlideEntry) -> float | None:
        """µm per level-0 pixel that the user gave for a slide, whatever its file states; None = what it states."""
        return self.mpp_override if entry.mpp is None else entry.mpp

    def open(self, entry: SlideEntry) -> Slide:
        """The slide of a list's entry; UserError where it cannot be opened."""
        return open_slide(entry.path, self.override_of(entry), self.backend, default_mpp=self.mpp)

    def mpp_source(self, entry: SlideEntry, slide: Slide) -> Literal["file", "mpp", "mpp_override"]:
        """Who says what the pixels of an opened slide measure: its file, or one of the settings."""
        if self.override_of(entry) is not None:
            return "mpp_override"
        return "file" if slide.states_mpp else "mpp"

    def reading_of(self, entry: SlideEntry) -> list[Any]:
        """Plain values on which the pixels of an entry depend, beside its file."""
        return [self.override_of(entry), self.backend] + ([] if self.mpp is None else [self.mpp])

    def cut(self, slide: Slide) -> Tiles:
        """Find the tissue of a slide and lay tiles on it; errors and warnings as in `find_tissue` and `tile_grid`."""
        return tile_grid(slide, find_tissue(slide, self.tissue), self.tiling)

    def attributes(self) -> dict[str, Any]:
        """The settings that are equal for all slides, by name, as dataclasses become dictionaries."""
        groups = ("tiling", "tissue", "annotations")
        return {name: asdict(getattr(self, name)) for name in groups} | {"backend": self.backend}
