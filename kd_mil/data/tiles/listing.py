"""Which slides a data set has: listed, excluded, labelled, and checked for tiles."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from kd_mil.core.errors import UserError
from kd_mil.data.classes import Classes, class_index, class_names, class_of
from kd_mil.data.tiles.cache import CutSlide
from kd_mil.slides.slide_list import SlideEntry, list_slides

NAMED_AT_MOST = 3
"""Slides named in a message."""


def without(entries: Sequence[SlideEntry], exclude: Sequence[str]) -> list[SlideEntry]:
    """The entries whose ids are not excluded.

    Raises:
        UserError: an excluded id that does not occur, or nothing left.
    """
    known = {entry.slide_id for entry in entries}
    for name in exclude:
        if name not in known:
            raise UserError(f"data.exclude names slide {name!r}, which is not among the {len(known)} slides")
    kept = [entry for entry in entries if entry.slide_id not in exclude]
    if not kept:
        raise UserError("data.exclude leaves no slides")
    return kept


def slide_classes(entries: Sequence[SlideEntry], classes: Classes) -> tuple[Tensor, tuple[str, ...]]:
    """Class (B,) int64 of each slide, and the names of the classes.

    Raises:
        UserError: a slide without a label, a label outside the classes, or as `class_index`.
    """
    labels = [entry.label for entry in entries if entry.label is not None]
    if len(labels) < len(entries):
        unlabelled = (entry.slide_id for entry in entries if entry.label is None)
        raise UserError(f"{named(unlabelled)} no label: give a column `label`, or data.labels=CSV (slide_id,label)")
    index = class_index(labels, classes, "slides")
    pairs = zip(labels, entries, strict=True)
    return torch.tensor([class_of(label, index, f"slide {e.slide_id!r}") for label, e in pairs]), class_names(index)


def require_tiles(cuts: Sequence[CutSlide]) -> None:
    """Refuse slides without a single tile.

    Raises:
        UserError: naming them.
    """
    empty = [cut.entry.slide_id for cut in cuts if len(cut.tiles.coords) == 0]
    if empty:
        raise UserError(
            f"{named(empty)} no tiles: lower tiling.min_tissue, look at the settings under `tissue`, "
            f"or leave them out with data.exclude=[{','.join(empty)}]"
        )


def named(slide_ids: Iterable[str]) -> str:
    """`slide 'a' has`, or `4 slides ('a', 'b', 'c', ...) have`: the beginning of a message."""
    ids = [repr(name) for name in slide_ids]
    if len(ids) == 1:
        return f"slide {ids[0]} has"
    more = ", ..." if len(ids) > NAMED_AT_MOST else ""
    return f"{len(ids)} slides ({', '.join(ids[:NAMED_AT_MOST])}{more}) have"


def slides_in(folder: Path, recursive: bool = False) -> list[SlideEntry]:
    """Slides of a folder that must be there and not be empty.

    Raises:
        UserError: it is not, or it is.
    """
    if not folder.is_dir():
        raise UserError(f"{str(folder)!r} does not exist: the data set is incomplete, or data.root points elsewhere")
    return list_slides(folder, recursive)
