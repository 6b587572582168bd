"""Which images train, validate, test, and which serve without their labels."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor

from kd_mil.core.checks import at_least, share
from kd_mil.core.errors import UserError
from kd_mil.data.pairs.stack import ImageSource
from kd_mil.data.splits import (
    AUXILIARY,
    PARTS,
    hold_out,
    read_split_file,
    refuse_twins,
    require_every_class,
    stratified_folds,
)

Unlabelled = Literal["train", "auxiliary", "both"]
LEFT_OUT = "left out"
"""In place of a part, of an image that cannot be read."""


@dataclass(frozen=True)
class Division:
    """How images are divided where their source does not say; arguments of `PairedImages`."""

    auxiliary_fraction: float
    fold: int | None
    num_folds: int
    test_fraction: float
    val_fraction: float
    split_file: str | None
    seed: int
    auxiliary_limit: int | None = None

    def __post_init__(self) -> None:
        if self.auxiliary_limit is not None:
            at_least("data.auxiliary_limit", self.auxiliary_limit, 1)
        share("data.auxiliary_fraction", self.auxiliary_fraction, one=False)


def divided(
    source: ImageSource, how: Division, distil_on: Unlabelled, unreadable: Mapping[int, str] = MappingProxyType({})
) -> list[str]:
    """Part of each image as `divide` says it, `LEFT_OUT` of those that cannot be read, whatever the others' parts.

    Args:
        source: the N images.
        how: they are divided.
        distil_on: as in `check_parts`.
        unreadable: why, by position.

    Raises:
        UserError: as `divide` and `check_parts`, with the first thing that was left out.
    """
    try:
        parts = [LEFT_OUT if index in unreadable else part for index, part in enumerate(divide(source, how))]
        check_parts(source, parts, distil_on)
    except UserError as error:
        reasons = [*source.left_out.values(), *unreadable.values()]
        few = f"{len(reasons)} images or slides are left out ({reasons[0]}), and without: " if reasons else ""
        raise UserError(f"{few}{error}") from error
    return parts


def divide(source: ImageSource, how: Division) -> list[str]:
    """Part of each image: from the split file, else from the source, else drawn by case, stratified by class.

    Raises:
        UserError: fewer than two classes, or no images to divide.
    """
    if len(source.class_names) < 2:
        found = f"one class, {source.class_names[0]}" if source.class_names else "no labels"
        raise UserError(f"the data set has {found}: telling apart takes two classes")
    if how.split_file is not None:
        return read_split_file(how.split_file, "image_id", source.ids, (*PARTS, AUXILIARY))
    parts = list(source.parts or [""] * len(source.ids))
    free = members(parts, "")
    if len(free):
        assign(parts, draw_parts(source, free, how))
    if "val" not in parts:
        move_cases(source, parts, "val", how.val_fraction, how.seed)
    if how.auxiliary_fraction > 0:
        move_cases(source, parts, AUXILIARY, how.auxiliary_fraction, how.seed)
    return parts


def draw_parts(source: ImageSource, free: Tensor, how: Division) -> dict[str, Tensor]:
    """Training and test images (and validation, with folds) among the positions `free`."""
    if how.fold is None:
        rest, test = hold_out(source.labels, source.cases, free, how.test_fraction, how.seed)
        return {"train": rest, "test": test}
    cases = None if source.cases is None else [source.cases[index] for index in free.tolist()]
    drawn = stratified_folds(source.labels[free], cases, how.fold, how.num_folds, how.val_fraction, how.seed)
    return {part: free[chosen] for part, chosen in zip(PARTS, drawn, strict=True)}


def move_cases(source: ImageSource, parts: list[str], part: str, fraction: float, seed: int) -> None:
    """Give a share of the training cases to another part."""
    if "train" not in parts:
        raise UserError("the train part has no images: train, val and test each need some")
    assign(parts, {part: hold_out(source.labels, source.cases, members(parts, "train"), fraction, seed)[1]})


def members(parts: list[str], part: str) -> Tensor:
    """(M,) int64 positions of a part."""
    return torch.tensor([index for index, word in enumerate(parts) if word == part], dtype=torch.long)


def limited(positions: Tensor, how: Division) -> Tensor:
    """At most `auxiliary_limit` of the positions (M,), ascending: of one seed, a smaller part lies within a larger one.

    Raises:
        UserError: there are fewer.
    """
    limit = how.auxiliary_limit
    if limit is None:
        return positions
    if limit > len(positions):
        raise UserError(f"data.auxiliary_limit={limit}, but there are {len(positions)} auxiliary images")
    order = torch.randperm(len(positions), generator=torch.Generator().manual_seed(how.seed))
    return positions[order[:limit].sort().values]


def assign(parts: list[str], chosen: dict[str, Tensor]) -> None:
    """Write the name of each part to its positions."""
    for part, positions in chosen.items():
        for index in positions.tolist():
            parts[index] = part


def check_parts(source: ImageSource, parts: list[str], distil_on: Unlabelled) -> None:
    """Refuse a split that would train or report on something else than it says.

    Raises:
        UserError: an empty part, a case, or one content under two names, in two parts, an image without a label that
            needs one, a class that a part has no image of, or no auxiliary images where the student is to learn from
            them.
    """
    for part in PARTS:
        if part not in parts:
            raise UserError(f"the {part} part has no images: train, val and test each need some")
    if distil_on != "train" and AUXILIARY not in parts:
        raise UserError(
            f"data.distil_on={distil_on}, but there are no auxiliary images: set data.auxiliary_fraction, "
            "or mark images `auxiliary`"
        )
    used = [(index, part) for index, part in enumerate(parts) if part != LEFT_OUT]
    part_of_case: dict[str, str] = {}
    labels: dict[str, set[int]] = {name: set() for name in PARTS}
    for index, part in used:
        case = source.ids[index] if source.cases is None else source.cases[index]
        if part_of_case.setdefault(case, part) != part:
            raise UserError(
                f"case {case!r} is in both {part_of_case[case]} and {part}: keep all its images in one part"
            )
        if part == AUXILIARY:
            continue
        if source.labels[index] < 0:
            raise UserError(f"image {source.ids[index]!r} has no label: only auxiliary images may lack one")
        labels[part].add(int(source.labels[index]))
    refuse_twins(source.twins, dict(used), source.ids)
    require_every_class(labels, source.class_names, "image")
