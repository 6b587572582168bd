"""MarkedTiles: tiles whose labels a model of slides gave, so that pixels can be learned from slide labels alone."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from kd_mil.core.checks import share
from kd_mil.core.errors import UserError
from kd_mil.core.hashing import file_digest
from kd_mil.data.classes import Classes
from kd_mil.data.datamodules import Loading
from kd_mil.data.masks.outlined_tiles import OutlinedTiles
from kd_mil.data.splits import read_split_file
from kd_mil.data.tiles.listing import slide_classes
from kd_mil.data.tiles.marks import highest_within, marks_table, read_marks, refuse_other_order, refuse_outlined
from kd_mil.slides.formats.reader import Slide
from kd_mil.slides.slide_list import SlideEntry, list_slides
from kd_mil.slides.tiles.tiling import Tiles


class MarkedTiles(OutlinedTiles):
    """Tiles of slides with slide labels, marked by the instance classifier of a trained model: WENO's student.

    In a slide of the first class, "no tumour", every tile is negative. In other slides a tile is positive if one of the
    predicted tiles whose centres lie in it has a probability of at least `positive_from`; tiles below are left out. So
    nothing but slide labels trains or selects. Where slides are outlined, the outlines give the masks to evaluate
    with, and the labels of **test** tiles, by `min_tumour`.

    Args:
        loading: as in `OutlinedTiles`.
        slides: CSV or folder, as for `data=slides`; needs labels, and parts unless `slide_splits` says them.
        predictions: folder that `kd_mil.predict` wrote for these slides.
        cache_dir: keeps the tiles read.
        classes: of the slides, the first means "no tumour"; as in `SlideBags`.
        slide_splits: CSV `bag_id,split` of the slides, such as `splits.csv` of the run that marks: what it was not
            trained on stays out of training; None = column `split` of the list.
        role: whose probability marks.
        positive_from: in (0, 1].
        mpp, tile_size, positive_per_slide, negative_per_slide, min_tumour: as in `OutlinedTiles`.
        **tiles: further settings of `OutlinedTiles`.

    Raises:
        UserError: a number out of range.
    """

    def __init__(
        self,
        loading: Loading,
        slides: str | None,
        predictions: str | None,
        cache_dir: str,
        classes: Classes = None,
        slide_splits: str | None = None,
        role: str = "student",
        positive_from: float = 0.9,
        mpp: float = 1.0,
        tile_size: int = 128,
        positive_per_slide: int = 20,
        negative_per_slide: int = 20,
        min_tumour: float = 0.05,
        **tiles: Any,
    ) -> None:
        sizes = {"mpp": mpp, "tile_size": tile_size, "min_tumour": min_tumour}
        counts = {"positive_per_slide": positive_per_slide, "negative_per_slide": negative_per_slide}
        super().__init__(loading, cache_dir, **sizes, **counts, **tiles)  # type: ignore[arg-type]
        share("data.positive_from", positive_from, zero=False)
        self.slides, self.predictions, self.slide_splits = slides, predictions, slide_splits
        self.classes, self.role, self.positive_from = classes, role, positive_from
        self._negative: set[str] = set()
        """Ids of the slides of the first class."""

    def setup(self, stage: str | None = None) -> None:
        """As of all images; UserError for a split file that trains, or selects, on labels of the test."""
        super().setup(stage)
        for part in ("train", "val"):
            tiles = [(self._slides[self._locations[at].slide], at) for at in getattr(self.splits, part).tolist()]
            marked = ((slide, self.bags.bag_ids[at]) for slide, at in tiles if slide.slide_id not in self._negative)
            refuse_outlined(marked, part)

    def entries(self) -> list[SlideEntry]:
        if self.slides is None or self.predictions is None:
            raise UserError(
                "data=marked_tiles takes data.slides=CSV with labels, and data.predictions=FOLDER that kd_mil.predict "
                "wrote for them: give both, or let kd_mil.chain do all steps"
            )
        entries = list_slides(self.slides)
        if self.slide_splits is not None:
            words = read_split_file(self.slide_splits, "bag_id", [entry.slide_id for entry in entries])
            entries = [replace(entry, split=word) for entry, word in zip(entries, words, strict=True)]
        unsaid = [entry.slide_id for entry in entries if entry.split is None]
        if unsaid:
            raise UserError(
                f"slide {unsaid[0]!r} of {self.slides} has no part: give a column `split`, or data.slide_splits=CSV "
                "(bag_id,split), such as splits.csv of the run that marked the tiles"
            )
        labels, names = slide_classes(entries, self.classes)
        refuse_other_order(Path(self.predictions), names)
        self._negative = {entry.slide_id for entry, label in zip(entries, labels.tolist(), strict=True) if label == 0}
        return entries

    def label_facts(self, entry: SlideEntry) -> list[Any]:
        table = [] if entry.slide_id in self._negative else [file_digest(self._table(entry))]
        said = [entry.slide_id in self._negative, entry.split, *table, self.role, self.positive_from]
        return [*super().label_facts(entry), *said]

    def labelled(self, entry: SlideEntry, slide: Slide, tiles: Tiles) -> tuple[np.ndarray, np.ndarray]:
        nothing = np.zeros(len(tiles.coords), dtype=bool)
        if entry.slide_id in self._negative:
            return ~nothing, nothing
        if entry.split == "test" and entry.annotation_path is not None:
            return super().labelled(entry, slide, tiles)
        centres, probs = read_marks(self._table(entry), self.role)
        return nothing, highest_within(tiles.coords, tiles.tile_size_level0, centres, probs) >= self.positive_from

    def is_empty(self, entry: SlideEntry, label: int) -> bool:
        return entry.slide_id in self._negative

    def _table(self, entry: SlideEntry) -> Path:
        """The file with what was predicted for the tiles of a slide."""
        assert self.predictions is not None  # `entries` came first
        return marks_table(Path(self.predictions), entry.slide_id)
