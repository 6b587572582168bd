"""PairedTiles: tiles of slides at the teacher's and the student's resolution, with or without labels of their own."""

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from lightning.pytorch.utilities import rank_zero_only

from kd_mil.core.checks import at_least, one_of, share
from kd_mil.core.errors import UserError
from kd_mil.data.pairs.paired_slides import label_of
from kd_mil.data.pairs.slide_pieces import UNLABELLED, Piece, SlidePieces
from kd_mil.data.tiles.marks import highest_within, marks_of, refuse_other_order, refuse_outlined
from kd_mil.slides.annotations.annotations import read_annotation, tumour_fraction
from kd_mil.slides.formats.reader import Slide
from kd_mil.slides.slide_list import SlideEntry
from kd_mil.slides.tiles.pieces import Box, Reading, TilePieces
from kd_mil.slides.tiles.tissue import TissueSettings

LabelsFrom = Literal["outlines", "slides", "predictions"]
LEFT_OUT = -2
"""Instead of a label, of a tile that is neither positive nor negative."""


class PairedTiles(SlidePieces):
    """Tiles of slides as single images. Where their labels come from is the first thing to decide.

    `slides`: every tile has its slide's label. `outlines`: a tile of an outlined slide is positive from `min_tumour`
    tumour area on and negative without any; tiles between are left out, those of the first class's slides are negative.
    `predictions`: nobody labels tiles; in slides of other classes than the first, a tile is positive where a model of
    slides, such as WENO's student, gave a probability of at least `positive_from`, and the others are left out, so that
    nothing but slide labels trains or selects. Where slides are outlined, outlines then label **test** tiles, if the
    list says which slides test (`split`). Slides without a label give tiles without one: auxiliary images.

    Args:
        slides: folder, pattern or CSV of slides (`slide_path`, `label`, `case_id`, `split`, `annotation_path`).
        tissue: how tissue is found.
        labels_from: see above.
        classes: of the slides, in the order of their index, the first of them without tumour; None = sorted by name.
        predictions: folder that `kd_mil.predict` wrote for these slides.
        role: whose probability marks.
        positive_from: in (0, 1].
        min_tumour: area fraction of a positive tile, in (0, 1].
        mpp: µm per pixel at downsample 1.
        tile_size: side of a tile in pixels at downsample 1.
        min_tissue: least tissue area fraction of a tile.
        tiles_per_slide: most tiles of each label of a slide, drawn by `seed` and slide; None = all.
        reading: as in `SlidePieces`.
        seed: of these, and of the split.
        **pieces: labels, max_megapixels of `SlidePieces`, and arguments of `PairedImages`.

    Raises:
        UserError: an unknown word or a number out of range.
    """

    nothing_found = "no tile has enough tissue: lower data.min_tissue, or look for tissue otherwise (tissue=)"

    def __init__(
        self,
        slides: str | None,
        tissue: TissueSettings,
        labels_from: LabelsFrom = "outlines",
        classes: Sequence[str] | None = None,
        predictions: str | None = None,
        role: str = "student",
        positive_from: float = 0.9,
        min_tumour: float = 0.25,
        mpp: float = 1.0,
        tile_size: int = 256,
        min_tissue: float = 0.5,
        tiles_per_slide: int | None = None,
        reading: Reading = "pyramid",
        seed: int = 0,
        **pieces: Any,
    ) -> None:
        super().__init__(slides, TilePieces(mpp, tissue, tile_size, min_tissue), reading=reading, seed=seed, **pieces)
        one_of("data.labels_from", labels_from, ("outlines", "slides", "predictions"))
        share("data.positive_from", positive_from, zero=False)
        share("data.min_tumour", min_tumour, zero=False)
        if tiles_per_slide is not None:
            at_least("data.tiles_per_slide", tiles_per_slide, 1)
        if (labels_from == "predictions") != (predictions is not None):
            raise UserError(
                "data.predictions=FOLDER, written by kd_mil.predict for these slides, goes with "
                "data.labels_from=predictions: give both or neither"
            )
        self.labels_from, self.predictions, self.role = labels_from, predictions, role
        self.classes = None if classes is None else list(classes)
        self.positive_from, self.min_tumour = positive_from, min_tumour
        self.tiles_per_slide, self.seed = tiles_per_slide, seed
        self._slide_classes: list[str] = []

    def setup(self, stage: str | None = None) -> None:
        """As of all pairs; UserError for a split file that trains, or selects, on labels of the test."""
        super().setup(stage)
        if self.labels_from == "predictions":
            for part in ("train", "val"):
                pieces = self.pieces_of_part(part)
                marked = (one for one in pieces if label_of(one.slide, self._slide_classes) != 0)
                refuse_outlined(((one.slide, one.name) for one in marked), part)

    def classes_of(self, entries: Sequence[SlideEntry]) -> list[str]:
        names = self.classes or sorted({entry.label for entry in entries if entry.label is not None})
        for entry in entries:
            label_of(entry, names)
        if self.labels_from != "slides" and len(names) != 2:
            raise UserError(
                f"data.labels_from={self.labels_from} tells tumour from none, but slides have the labels {names}: "
                "give data.classes=[normal,tumour]"
            )
        if self.predictions is not None:
            refuse_other_order(Path(self.predictions), names)
            self._say_who_judges(entries)
        self._slide_classes = names
        return names

    def _say_who_judges(self, entries: Sequence[SlideEntry]) -> None:
        """One line where test tiles are labelled by predictions in spite of outlines: nobody knows yet which test."""
        if any(entry.annotation_path is not None and entry.split is None for entry in entries):
            rank_zero_only(print)(
                "data.labels_from=predictions: test tiles have labels by predictions, too, and none by outlines: for "
                "those give the slides a column `split`"
            )

    def labelled(self, entry: SlideEntry, slide: Slide, boxes: Sequence[Box], names: Sequence[str]) -> list[Piece]:
        labels = self._labels(entry, slide, np.array(boxes))
        chosen = drawn(labels, self.tiles_per_slide, (self.seed, zlib.crc32(entry.slide_id.encode())))
        return [
            Piece(entry, f"{entry.slide_id}_{boxes[at][0]}_{boxes[at][1]}", boxes[at], slide.mpp, int(labels[at]))
            for at in chosen
        ]

    def _labels(self, entry: SlideEntry, slide: Slide, boxes: np.ndarray) -> np.ndarray:
        """Label (N,) of each tile, -1 unknown, -2 to be left out."""
        label, side, corners = label_of(entry, self._slide_classes), int(boxes[0, 2]), boxes[:, :2]
        if self.labels_from == "slides" or label in (0, UNLABELLED):
            return np.full(len(boxes), label)
        if self.labels_from == "outlines" or (entry.split == "test" and entry.annotation_path is not None):
            if entry.annotation_path is None:
                return np.full(len(boxes), UNLABELLED)
            tumour = tumour_fraction(read_annotation(entry.annotation_path, slide), corners, side)
            return np.where(tumour >= self.min_tumour, 1, np.where(tumour == 0, 0, LEFT_OUT))
        assert self.predictions is not None  # the constructor has looked
        centres, probs = marks_of(Path(self.predictions), entry.slide_id, self.role)
        return np.where(highest_within(corners, side, centres, probs) >= self.positive_from, 1, LEFT_OUT)


def drawn(labels: np.ndarray, most: int | None, seed: tuple[int, int]) -> list[int]:
    """Positions, ascending, of at most so many tiles of each label (N,); those to be left out never."""
    rng = np.random.default_rng(seed)
    chosen: list[int] = []
    for label in np.unique(labels[labels != LEFT_OUT]):
        members = np.flatnonzero(labels == label)
        chosen += members.tolist() if most is None else rng.permutation(members)[:most].tolist()
    return sorted(chosen)
