"""How a slide is cut into tiles: the settings that decide it, and nothing else."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from kd_mil.core.checks import above
from kd_mil.core.hashing import file_identity
from kd_mil.slides.annotations.annotations import AnnotationSettings
from kd_mil.slides.formats.reader import Slide, open_slide, reader_class
from kd_mil.slides.slide_list import SlideEntry
from kd_mil.slides.tiles.outlines import OutlineSettings, outlined_tissue
from kd_mil.slides.tiles.tiling import Tiles, TilingSettings, tile_grid
from kd_mil.slides.tiles.tissue import TissueMask, TissueSettings, find_tissue


@dataclass(frozen=True)
class Cutting:
    """How slides are read and cut into tiles, the same for training, extraction and prediction.

    Raises:
        UserError: an unknown backend, or a resolution that is no positive number.
    """

    tiling: TilingSettings
    tissue: TissueSettings | OutlineSettings = field(default_factory=TissueSettings)
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
        """Plain values on which the tiles of an entry and their pixels depend, beside its file and the settings."""
        outlines = self.outlines_of(entry)
        drawn = [] if outlines is None else file_identity(outlines)
        return [self.override_of(entry), self.backend, *([] if self.mpp is None else [self.mpp]), *drawn]

    def cut(self, slide: Slide, entry: SlideEntry | None = None) -> Tiles:
        """Find the tissue of a slide and lay tiles on it; errors and warnings as in `find_tissue` and `tile_grid`.

        The entry says by which id outlines are looked up; without, the name of the file does.
        """
        return self.cut_with_tissue(slide, entry or SlideEntry(slide.name, slide.path, slide.name))[0]

    def cut_with_tissue(self, slide: Slide, entry: SlideEntry) -> tuple[Tiles, TissueMask]:
        """As `cut`, with the tissue that the tiles lie on."""
        tissue = self.tissue_of(slide, entry)
        return tile_grid(slide, tissue, self.tiling), tissue

    def tissue_of(self, slide: Slide, entry: SlideEntry) -> TissueMask:
        """The tissue of a slide, found or outlined; errors and warnings of either."""
        if isinstance(self.tissue, OutlineSettings):
            return outlined_tissue(slide, entry, self.tissue)
        return find_tissue(slide, self.tissue)

    def outlines_of(self, entry: SlideEntry) -> Path | None:
        """The file that outlines the tissue of an entry; None where the tissue is found by its colour.

        Raises:
            UserError: there is none.
        """
        return self.tissue.path_of(entry) if isinstance(self.tissue, OutlineSettings) else None

    def attributes(self) -> dict[str, Any]:
        """The settings that are equal for all slides, by name, as dataclasses become dictionaries."""
        groups = ("tiling", "tissue", "annotations")
        plain = {name: asdict(getattr(self, name)) for name in groups}
        plain["tissue"].pop("folder", None)  # outlines may be moved; what they hold is noted with each slide
        return plain | {"backend": self.backend}


def tissue_settings(plain: Mapping[str, Any]) -> TissueSettings | OutlineSettings:
    """Settings of either kind from plain values, as checkpoints keep them."""
    return OutlineSettings(**plain) if "folder" in plain else TissueSettings(**plain)
