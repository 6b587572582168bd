"""Train, val and test: made by stratification with cases kept whole, read from a file, checked, written out."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from sklearn.model_selection import StratifiedKFold, train_test_split
from torch import Tensor

from kd_mil.core.checks import at_least
from kd_mil.core.errors import UserError
from kd_mil.core.suggestions import did_you_mean
from kd_mil.core.tables import PARTS, by_part, read_table, require_columns
from kd_mil.data.bags import BagSplits

WORD_OF_PART = {"train": "training", "val": "validation", "test": "test"}
AUXILIARY = "auxiliary"
"""Images that serve without their labels."""
Parts = tuple[Tensor, Tensor, Tensor]
"""Positions of the train, val and test bags, int64."""


def positions_of_parts(words: Sequence[str | None]) -> Parts:
    """Where in a list each of the three words is."""
    train, val, test = (
        torch.tensor([index for index, word in enumerate(words) if word == part], dtype=torch.long) for part in PARTS
    )
    return train, val, test


def stratified_folds(
    labels: Tensor, cases: Sequence[str] | None, fold: int, num_folds: int, val_fraction: float, seed: int
) -> Parts:
    """Positions of the train, val and test bags of one fold of a cross-validation.

    Folds are dealt over cases, stratified by the highest label among a case's bags, so that no case is in two parts.
    Every bag is tested in exactly one fold.

    Args:
        labels: (B,) int64 bag labels.
        cases: case of each bag; None = every bag is a case of its own.
        fold: which fold is tested, in [0, num_folds).
        num_folds: at least 2.
        val_fraction: share of *all* cases held out for validation: 5 folds and 0.1 give 70/10/20.
        seed: of the folds and of the validation part.

    Raises:
        UserError: a fold that does not exist, or a class with fewer cases than folds.
    """
    at_least("num_folds", num_folds, 2)
    if not 0 <= fold < num_folds:
        raise UserError(f"fold={fold}: must be one of 0..{num_folds - 1}")
    case_of_bag, case_labels = _cases(labels, cases)
    _require_cases(case_labels, num_folds, f"num_folds={num_folds}")
    folds = StratifiedKFold(num_folds, shuffle=True, random_state=seed).split(case_labels, case_labels)
    is_test = torch.from_numpy(np.isin(case_of_bag, list(folds)[fold][1]))
    return split_around(is_test, labels, cases, val_fraction, seed)


def split_around(is_test: Tensor, labels: Tensor, cases: Sequence[str] | None, val_fraction: float, seed: int) -> Parts:
    """Positions of the train, val and test bags where the test bags are given as (B,) bool; otherwise as above."""
    test, rest = is_test.nonzero().flatten(), (~is_test).nonzero().flatten()
    train, val = hold_out(labels, cases, rest, val_fraction * len(labels) / max(len(rest), 1), seed)
    return train, val, test


def hold_out(
    labels: Tensor, cases: Sequence[str] | None, bags: Tensor, fraction: float, seed: int
) -> tuple[Tensor, Tensor]:
    """Divide the given bags in two: what is left, and about `fraction` of their cases, stratified by label.

    Either part holds a case of each label, however rare it is and however small the part.

    Args:
        labels: (B,) int64 labels of all bags.
        cases: case of each of the B bags; None = every bag is a case of its own.
        bags: (M,) int64 positions of the bags to divide.
        fraction: share of the cases that goes to the second part, in (0, 1).
        seed: of the draw.

    Raises:
        UserError: a fraction outside (0, 1), or a class with a single case.
    """
    if not 0 < fraction < 1:
        raise UserError(f"a held-out fraction of {fraction:g} leaves a part empty: it must lie between 0 and 1")
    cases_here = None if cases is None else [cases[bag] for bag in bags.tolist()]
    case_of_bag, case_labels = _cases(labels[bags], cases_here)
    _require_cases(case_labels, 2, "a held-out part")
    num_classes, num_cases = len(np.unique(case_labels)), len(case_labels)
    count = int(np.clip(round(fraction * num_cases), num_classes, num_cases - num_classes))
    _, held = train_test_split(np.arange(num_cases), test_size=count, stratify=case_labels, random_state=seed)
    is_held = torch.from_numpy(np.isin(case_of_bag, _with_every_label(held, case_labels, seed)))
    return bags[~is_held], bags[is_held]


def _with_every_label(held: np.ndarray, case_labels: np.ndarray, seed: int) -> np.ndarray:
    """The held-out cases, one more or one fewer of each label that one of the two parts would lack."""
    rng = np.random.default_rng(seed)
    for label in np.unique(case_labels):
        cases = np.flatnonzero(case_labels == label)
        inside = np.isin(cases, held)
        if not inside.any():
            held = np.append(held, rng.choice(cases))
        elif inside.all():
            held = np.setdiff1d(held, [rng.choice(cases)])
    return held


def _cases(labels: Tensor, cases: Sequence[str] | None) -> tuple[np.ndarray, np.ndarray]:
    """Case number of each bag (B,), and the highest label of each case."""
    if cases is None:
        return np.arange(len(labels)), labels.numpy()
    names, case_of_bag = np.unique(np.asarray(cases), return_inverse=True)
    case_labels = np.zeros(len(names), dtype=np.int64)
    np.maximum.at(case_labels, case_of_bag, labels.numpy())
    return case_of_bag, case_labels


def _require_cases(case_labels: np.ndarray, least: int, purpose: str) -> None:
    values, counts = np.unique(case_labels, return_counts=True)
    for label, count in zip(values.tolist(), counts.tolist(), strict=True):
        if count < least:
            raise UserError(
                f"class {label} has {count} case(s), too few for {purpose}: give more cases or a split of your own"
            )


def apply_split_file(splits: BagSplits, path: str | Path) -> BagSplits:
    """Replace the split by that of a CSV with `bag_id` and `split`, or CLAM's; errors as in `read_split_file`."""
    train, val, test = positions_of_parts(read_split_file(path, "bag_id", splits.bags.bag_ids))
    return splits._replace(train=train, val=val, test=test)


def read_split_file(path: str | Path, column: str, ids: Sequence[str], words: Sequence[str] = PARTS) -> list[str]:
    """Part of each bag or image from a CSV; further columns are ignored, so that the table of a run can be read back.

    Args:
        path: CSV with the columns `column` and `split`, or with a column of ids for each part (`core.tables.by_part`).
        column: `bag_id` or `image_id`.
        ids: those of the data set.
        words: the parts there are.

    Raises:
        UserError: an unreadable file, a missing column, an unknown word or id, an id that is listed twice, or one that
            is not listed.
    """
    table, kind = by_part(read_table(path, ()), path, column), column.removesuffix("_id")
    require_columns(table, (column, "split"), path)
    known, parts = set(ids), dict[str, str]()
    for line, item, word in zip(table.index, table[column], table["split"], strict=True):
        if word not in words:
            raise UserError(f"{path}, line {line}: split {word!r} is none of {', '.join(words)}")
        if item not in known:
            raise UserError(f"{path}, line {line}: the data set has no {kind} {item!r}; {did_you_mean(item, ids)}")
        if item in parts:
            raise UserError(f"{path}, line {line}: {kind} {item!r} is listed twice")
        parts[item] = word
    for item in ids:
        if item not in parts:
            raise UserError(f"{path}: {kind} {item!r} of the data set is not listed: give it a split")
    return [parts[item] for item in ids]


def check_splits(splits: BagSplits) -> None:
    """Refuse a split that would train or report on something else than it says.

    Raises:
        UserError: an empty part, a bag or a case in two parts, or a class that a part has no bag of.
    """
    bags, parts = splits.bags, {part: getattr(splits, part).tolist() for part in PARTS}
    part_of_bag: dict[int, str] = {}
    part_of_case: dict[str, str] = {}
    for part, members in parts.items():
        if not members:
            raise UserError(f"the {part} part has no bags: train, val and test each need some")
        for bag in members:
            if part_of_bag.setdefault(bag, part) != part:
                raise UserError(f"bag {bags.bag_ids[bag]!r} is in both {part_of_bag[bag]} and {part}")
            case = bags.bag_ids[bag] if bags.case_ids is None else bags.case_ids[bag]
            if part_of_case.setdefault(case, part) != part:
                raise UserError(
                    f"case {case!r} is in both {part_of_case[case]} and {part}: keep all bags of a case in one part"
                )
    labels = {part: bags.labels[members].tolist() for part, members in zip(PARTS, splits[1:], strict=True)}
    require_every_class(labels, bags.class_names, "bag")


def refuse_twins(twins: Iterable[Sequence[int]], part_of: Mapping[int, str], names: Sequence[str]) -> None:
    """Refuse what is in two parts under two names: what is trained on would be tested on, too.

    Args:
        twins: groups of positions of equal content.
        part_of: the part by position, of those in use.
        names: ids by position.

    Raises:
        UserError: naming a group and its parts.
    """
    for group in twins:
        used = [index for index in group if index in part_of]
        parts = [part for part in (*PARTS, AUXILIARY) if part in {part_of[index] for index in used}]
        if len(parts) > 1:
            alike = " and ".join(f"{names[index]!r} ({part_of[index]})" for index in used[:4])
            raise UserError(f"{alike} have the same content: keep one of them, or give them one case_id and one part")


def require_every_class(labels: Mapping[str, Iterable[int]], class_names: Sequence[str], kind: str) -> None:
    """Refuse a part that lacks a class: it could not be learned, selected by, or scored.

    Args:
        labels: those of each part.
        class_names: C names.
        kind: `bag` or `image`, for the message.

    Raises:
        UserError: naming the class and the part.
    """
    everywhere = {label for part in labels.values() for label in part}
    if len(everywhere) == 1:
        [label] = everywhere
        raise UserError(f"every {kind} has class {class_names[label]!r}: to tell classes apart takes two at least")
    for part, members in labels.items():
        present = set(members)
        for label, name in enumerate(class_names):
            if label not in present:
                raise UserError(
                    f"no {WORD_OF_PART[part]} {kind} has class {name!r}: each part needs at least one {kind} of every "
                    "class; give more of them, or another split"
                )
