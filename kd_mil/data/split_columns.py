"""Train, val and test as the columns `split` and `fold` of a table of slides say, else by stratified folds."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from kd_mil.core.errors import UserError
from kd_mil.data.bags import Bags
from kd_mil.data.splits import Parts, positions_of_parts, split_around, stratified_folds


@dataclass(frozen=True)
class Folds:
    """How a data set is split where nobody says which bag belongs where."""

    fold: int | None
    """None = as the `split` column says, or fold 0 where there is none; else the fold to test."""
    num_folds: int
    """Stratified folds that are made where there is no `fold` column."""
    val_fraction: float
    """Share of all cases held out for validation, unless the `split` column says which."""
    seed: int
    """Of the folds and of the validation part."""


def choose_parts(bags: Bags, splits: Sequence[str | None], folds: Sequence[int | None], how: Folds) -> Parts:
    """The parts that the columns `split` and `fold` of a table of slides say, else stratified folds.

    The `fold` column wins over the `split` column where `how.fold` is given.

    Args:
        bags: B bags.
        splits: train, val or test for each bag; None for all = no such column.
        folds: the fold in which each bag is tested; None for all = no such column.
        how: which fold is tested, and how folds are made.

    Raises:
        UserError: a column that is filled in part, a fold that does not occur, or as `stratified_folds`.
    """
    labels, cases, fold = bags.labels, bags.case_ids, how.fold or 0
    if how.fold is None and _is_filled("split", splits, bags.bag_ids):
        if "val" in splits:
            return positions_of_parts(splits)
        is_test = torch.tensor([word == "test" for word in splits])
        return split_around(is_test, labels, cases, how.val_fraction, how.seed)
    if not _is_filled("fold", folds, bags.bag_ids):
        return stratified_folds(labels, cases, fold, how.num_folds, how.val_fraction, how.seed)
    is_test = torch.tensor([number == fold for number in folds])
    if not is_test.any():
        known = sorted({number for number in folds if number is not None})
        raise UserError(f"data.fold={fold}: the column `fold` has {', '.join(map(str, known))}")
    return split_around(is_test, labels, cases, how.val_fraction, how.seed)


def _is_filled(column: str, cells: Sequence[str | int | None], bag_ids: Sequence[str]) -> bool:
    empty = [bag_id for bag_id, cell in zip(bag_ids, cells, strict=True) if cell is None]
    if empty and len(empty) < len(cells):
        raise UserError(f"{empty[0]!r} has no {column}, but others have one: fill the column, or remove it")
    return not empty
