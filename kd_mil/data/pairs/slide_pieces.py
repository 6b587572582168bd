"""Base of the paired sets that are cut from slides: their pieces listed, labelled, and read at either resolution."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from PIL import Image
from tqdm import tqdm

from kd_mil.core.errors import UserError, one_line
from kd_mil.data.pairs.pair_data import PairedImages
from kd_mil.data.pairs.stack import ImageSource
from kd_mil.slides.formats.reader import Slide, open_slide
from kd_mil.slides.slide_content import of_equal_content
from kd_mil.slides.slide_labels import with_labels
from kd_mil.slides.slide_list import SlideEntry, list_slides
from kd_mil.slides.tiles.pieces import Box, Pieces, Reading, check_reading, read_piece

UNLABELLED = -1


class Piece(NamedTuple):
    """A piece of tissue of a slide."""

    slide: SlideEntry
    name: str
    """Unique."""
    box: Box
    slide_mpp: float
    """µm per level-0 pixel."""
    label: int = UNLABELLED


class SlidePieces(PairedImages):
    """Pieces of slides at two resolutions; a set says how slides are cut, and how pieces are named and labelled.

    Slides of a case stay together. A slide that cannot be read, or has no piece, is left out and listed.

    Args:
        slides: folder, pattern or CSV of slides (`slide_path`, `label`, `case_id`, `split`).
        cutting: how tissue is found and cut into pieces.
        labels: CSV `slide_id,label` where the slides come without.
        reading: `level0` reads all pixels and reduces them in one Lanczos step; `pyramid` takes the nearest level.
        max_megapixels: largest piece at level 0 that may be read.
        **pairs: arguments of `PairedImages`.

    Raises:
        UserError: an unknown reading.
    """

    def __init__(
        self,
        slides: str | None,
        cutting: Pieces,
        labels: str | None = None,
        reading: Reading = "level0",
        max_megapixels: float = 500.0,
        **pairs: Any,
    ) -> None:
        super().__init__(**pairs)
        check_reading("data.reading", reading)
        self.slides, self.labels, self.cutting = slides, labels, cutting
        self.reading: Reading = reading
        self.max_megapixels = max_megapixels

    def classes_of(self, entries: Sequence[SlideEntry]) -> list[str]:
        """Names of the classes of pieces, in the order of their index."""
        raise NotImplementedError(f"{type(self).__name__} does not name its classes")

    def labelled(self, entry: SlideEntry, slide: Slide, boxes: Sequence[Box], names: Sequence[str]) -> list[Piece]:
        """Pieces of an open slide with their names and labels; some may be left out."""
        raise NotImplementedError(f"{type(self).__name__} does not label its pieces")

    def read(self) -> ImageSource:
        if self.slides is None:
            raise UserError("data.slides is not set: point it to a folder of slides or a CSV slide_path,label")
        entries = list_slides(self.slides)
        entries = entries if self.labels is None else with_labels(entries, self.labels)
        names = self.classes_of(entries)
        pieces, left_out = self._pieces(entries, names)
        self.pieces = pieces
        owners, reader = [piece.slide for piece in pieces], PieceReader(pieces, self.cutting.mpp)
        unlabelled = ["" if piece.label >= 0 else "auxiliary" for piece in pieces]
        return ImageSource(
            ids=[piece.name for piece in pieces],
            labels=torch.tensor([piece.label for piece in pieces]),
            class_names=tuple(names),
            open=reader,
            cases=[entry.case_id for entry in owners],
            parts=[entry.split or part for entry, part in zip(owners, unlabelled, strict=True)],
            scales=[self.cutting.mpp / piece.slide_mpp for piece in pieces],
            twins=_twins(pieces),
            left_out=left_out,
            read_at=reader.read_at if self.reading == "pyramid" else None,
        )

    def pieces_of_part(self, part: str) -> list[Piece]:
        """The pieces of a part, once the data are set up."""
        return [self.pieces[at] for at in self.positions[part].tolist()]

    @property
    def instance_source(self) -> dict[str, Any]:
        """How pieces are found, and at what resolution; prediction finds those of new slides in the same way."""
        return self.cutting.facts() | {"reading": self.reading}

    def _pieces(self, entries: Sequence[SlideEntry], names: Sequence[str]) -> tuple[list[Piece], dict[str, str]]:
        """The pieces of all slides, and why slides gave none; UserError where all gave none."""
        pieces: list[Piece] = []
        left_out: dict[str, str] = {}
        for entry in tqdm(entries, desc="tissue", unit="slide", disable=None, leave=False):
            try:
                pieces += self._pieces_of(entry, names)
            except Exception as error:  # whatever it is, the other slides are used
                left_out[entry.slide_id] = one_line(error)
        if not pieces:
            more = f" ({len(left_out) - 1} more slides give none, too)" if len(left_out) > 1 else ""
            raise UserError(f"{self.slides}: no slide gives an image: {next(iter(left_out.values()))}{more}")
        return pieces, left_out

    def _pieces_of(self, entry: SlideEntry, names: Sequence[str]) -> list[Piece]:
        slide = open_slide(entry.path, entry.mpp, mpp_setting=None)
        try:
            finest = self.cutting.mpp * self.downsamples["teacher"]
            if slide.mpp > finest * 1.01:
                raise UserError(
                    f"slide {slide.name!r} has {slide.mpp:g} µm per pixel, coarser than the teacher's {finest:g}: "
                    "raise data.mpp or data.teacher_downsample"
                )
            boxes = self.cutting.boxes(slide)
            for _, _, width, height in boxes:
                if width * height > self.max_megapixels * 1e6:
                    raise UserError(
                        f"slide {slide.name!r} has a piece of tissue of {width} x {height} pixels at level 0: "
                        f"raise data.max_megapixels={self.max_megapixels:g}"
                    )
            if not boxes:
                raise UserError(f"slide {slide.name!r}: {self.nothing_found}")
            return self.labelled(entry, slide, boxes, names)
        finally:
            slide.close()

    nothing_found = "no tissue"
    """Why a slide has no piece, and how to get some."""


class PieceReader:
    """Opens pieces by their position; travels to worker processes, each of which keeps one slide open.

    Args:
        pieces: of any slides.
        mpp: µm per pixel at downsample 1.
    """

    def __init__(self, pieces: Sequence[Piece], mpp: float) -> None:
        self.pieces, self.mpp = list(pieces), mpp
        self._slide: Slide | None = None

    def __call__(self, index: int) -> Image.Image:
        """The pixels of a piece at level 0."""
        slide = self._opened(index)
        return read_piece(slide, self.pieces[index].box, slide.mpp, "level0")

    def read_at(self, index: int, downsample: float) -> Image.Image:
        """The pixels of a piece at a downsample, read from the nearest level of the pyramid."""
        return read_piece(self._opened(index), self.pieces[index].box, self.mpp * downsample, "pyramid")

    def _opened(self, index: int) -> Slide:
        entry = self.pieces[index].slide
        if self._slide is None or self._slide.path != entry.path:
            if self._slide is not None:
                self._slide.close()
            self._slide = open_slide(entry.path, entry.mpp, mpp_setting=None)
        return self._slide


def _twins(pieces: Sequence[Piece]) -> list[list[int]]:
    """Positions of the pieces of slides of equal content."""
    slides = {piece.slide.slide_id: piece.slide for piece in pieces}
    names, files = list(slides), [slide.path for slide in slides.values()]
    groups = [{names[index] for index in group} for group in of_equal_content(files)]
    return [[at for at, piece in enumerate(pieces) if piece.slide.slide_id in group] for group in groups]
