"""PairedSlides: tissue sections cut whole from slides, at the teacher's and the student's resolution."""

from collections.abc import Sequence
from typing import Any

from kd_mil.core.errors import UserError
from kd_mil.core.suggestions import did_you_mean
from kd_mil.data.pairs.slide_pieces import UNLABELLED, Piece, SlidePieces
from kd_mil.slides.formats.reader import Slide
from kd_mil.slides.slide_list import SlideEntry
from kd_mil.slides.tiles.pieces import Box, Sections
from kd_mil.slides.tiles.tissue import TissueSettings


class PairedSlides(SlidePieces):
    """Every tissue section of every slide as one image with its slide's label (Sec. 4.2).

    Slides of a case stay together. Downsample 1 is `mpp`. A slide that cannot be read, or has no section, is left out
    and listed.

    Args:
        slides: folder, pattern or CSV of slides (`slide_path`, `label`, `case_id`, `split`).
        tissue: how tissue is found.
        classes: names in the order of their index; None = sorted by name.
        mpp: µm per pixel at downsample 1; 1.0 is 10x.
        margin_um: widens the box around a section.
        min_side_um: sections with a shorter side are left out.
        **pieces: labels, reading, max_megapixels of `SlidePieces`, and arguments of `PairedImages`.
    """

    def __init__(
        self,
        slides: str | None,
        tissue: TissueSettings,
        classes: Sequence[str] | None = None,
        mpp: float = 1.0,
        margin_um: float = 32.0,
        min_side_um: float = 200.0,
        **pieces: Any,
    ) -> None:
        super().__init__(slides, Sections(mpp, tissue, margin_um, min_side_um), **pieces)
        self.classes = None if classes is None else list(classes)
        self.nothing_found = (
            f"no tissue section has sides of {min_side_um:g} µm: lower data.min_side_um, or look for tissue otherwise "
            "(tissue=)"
        )

    def classes_of(self, entries: Sequence[SlideEntry]) -> list[str]:
        names = self.classes or sorted({entry.label for entry in entries if entry.label is not None})
        for entry in entries:
            label_of(entry, names)
        return names

    def labelled(self, entry: SlideEntry, slide: Slide, boxes: Sequence[Box], names: Sequence[str]) -> list[Piece]:
        label = label_of(entry, names)
        return [Piece(entry, f"{entry.slide_id}-{at}", box, slide.mpp, label) for at, box in enumerate(boxes)]


def label_of(entry: SlideEntry, names: Sequence[str]) -> int:
    """Class of a slide; -1 without a label, UserError for a label that is none of the names."""
    if entry.label is None:
        return UNLABELLED
    if entry.label not in names:
        raise UserError(f"slide {entry.slide_id!r} has the label {entry.label!r}; {did_you_mean(entry.label, names)}")
    return list(names).index(entry.label)
