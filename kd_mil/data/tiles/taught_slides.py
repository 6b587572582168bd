"""TaughtSlides: slides cut at low magnification, with what a model of slides said of the same tissue."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from kd_mil.core.errors import UserError
from kd_mil.data.bags import BagSplits
from kd_mil.data.datamodules import Loading
from kd_mil.data.tiles.cache import CutSlide
from kd_mil.data.tiles.marks import marks_table, points_within, read_columns, refuse_other_order, table_columns
from kd_mil.data.tiles.slides import SlideBags
from kd_mil.slides.slide_list import SlideEntry


class Taught(NamedTuple):
    """What a teacher said of the N tiles of a data set."""

    probs: Tensor
    """(N, C) float32; NaN where it saw nothing."""
    attention: Tensor
    """(N,) float32, sums to 1 over each slide it saw; 0 in the others."""


class TaughtSlides(SlideBags):
    """Slides as in `SlideBags`, whose **training** tiles come with probabilities of a model trained on slide labels.

    That model may have any tiles, commonly at a higher magnification: a tile is as positive as the most positive of its
    tiles whose centres lie in it. Tiles of training slides of the first class are negative, if `negatives_known`.
    Validation and test slides have nothing but their labels and outlines.

    Args:
        slides, loading: as in `SlideBags`.
        teacher: checkpoint, or directory of a run, of a method on bags of tiles; the run predicts the training slides
            with it first, and keeps that under `cache_dir`.
        predictions: folder that `kd_mil.predict` wrote for the training slides, instead.
        role: whose probabilities.
        **settings: further arguments of `SlideBags`.

    Raises:
        UserError: cases as bags: tiles are taught slide by slide.
    """

    taught: Taught

    def __init__(
        self,
        slides: str | None,
        loading: Loading,
        teacher: str | None = None,
        predictions: str | None = None,
        role: str = "student",
        **settings: Any,
    ) -> None:
        super().__init__(slides, loading, **settings)
        if self.bag_by != "slide":
            raise UserError(f"data.bag_by={self.bag_by}: a teacher's word is that on single slides, leave it out")
        self.teacher, self.role = teacher, role
        self.predictions = None if predictions is None else Path(predictions)

    def load(self) -> BagSplits:
        if (self.teacher is None) == (self.predictions is None):
            raise UserError(
                "data=taught_slides takes data.teacher=RUN, a model of these slides, or data.predictions=FOLDER that "
                "kd_mil.predict wrote for them: give one of them"
            )
        return super().load()

    def setup(self, stage: str | None = None) -> None:
        """As of slides; then the word of the folder on those that train, once it is known which do."""
        super().setup(stage)
        if self.predictions is not None and not hasattr(self, "taught"):
            self.teach(self.predictions)

    def fingerprint(self) -> str:
        """Also of what the teacher said."""
        own = hashlib.sha256(super().fingerprint().encode())
        for values in self.taught:
            own.update(values.numpy().data)
        return own.hexdigest()[:16]

    @property
    def to_teach(self) -> list[SlideEntry]:
        """The slides that a teacher has to predict: those of the training part."""
        return [self.cuts[bag].entry for bag in self.splits.train.tolist()]

    def teach(self, predictions: Path) -> None:
        """Take the teacher's word on training slides from a folder that `kd_mil.predict` wrote.

        Raises:
            UserError: a slide, the role or a class that is not there, or as `refuse_other_order`.
        """
        bags, training = self.splits.bags, set(self.splits.train.tolist())
        refuse_other_order(predictions, bags.class_names)
        words = []
        for bag, cut in enumerate(self.cuts):
            negative = self.negatives_known and int(bags.labels[bag]) == 0
            if bag in training:
                words.append(taught_tiles(cut, predictions, self.role, bags.class_names, negative))
            else:
                words.append(unknown(len(cut.tiles.coords), len(bags.class_names)))
        self.taught = Taught(torch.cat([word.probs for word in words]), torch.cat([word.attention for word in words]))


def unknown(tiles: int, classes: int) -> Taught:
    """Of tiles that the teacher did not see."""
    return Taught(torch.full((tiles, classes), float("nan")), torch.zeros(tiles))


def taught_tiles(cut: CutSlide, predictions: Path, role: str, classes: Sequence[str], negative: bool) -> Taught:
    """The teacher's word on the tiles of one slide.

    Args:
        cut: the slide and its N tiles.
        predictions: folder of `kd_mil.predict`.
        role: whose.
        classes: C names.
        negative: all tiles are known to be of the first class.
    """
    path = marks_table(predictions, cut.entry.slide_id)
    by_class = [f"{role}_prob_{name}" for name in classes]
    names = [f"{role}_prob"] if len(classes) == 2 else by_class
    attention = ["attention"] if "attention" in table_columns(path) else []
    centres, columns = read_columns(path, [*names, *attention])
    inside = points_within(cut.tiles.coords, cut.tiles.tile_size_level0, centres)
    probs = np.full((len(inside), len(classes)), np.nan, dtype=np.float32)
    guide = np.zeros(len(inside), dtype=np.float32)
    for tile, points in enumerate(inside):
        if points:
            own = columns[points]
            probs[tile] = of_most_positive(own[:, : len(names)])
            guide[tile] = own[:, -1].sum() if attention else 1 - probs[tile, 0]
    if negative:
        probs[:] = np.eye(len(classes))[0]
    total = guide.sum()
    return Taught(torch.from_numpy(probs), torch.from_numpy(guide / total if total > 0 else guide))


def of_most_positive(probs: np.ndarray) -> np.ndarray:
    """Class probabilities (C,) of the most positive of M tiles: (M, 1) of the second of two classes, or (M, C)."""
    if probs.shape[1] == 1:
        highest = probs.max()
        return np.array([1 - highest, highest])
    chosen = probs[probs[:, 0].argmin()]
    return chosen / chosen.sum()
