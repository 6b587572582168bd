"""The manifest of a set of feature bags: one CSV row per slide, checked line by line."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor

from kd_mil.core.errors import UserError
from kd_mil.core.suggestions import closest
from kd_mil.data.features.layouts import feature_table
from kd_mil.data.splits import PARTS


class Manifest(NamedTuple):
    """S slides; every list has one entry per slide."""

    slide_ids: list[str]
    case_ids: list[str] | None
    """None where the manifest has no `case_id`: every slide is a case of its own."""
    labels: Tensor
    """(S,) int64."""
    class_names: tuple[str, ...]
    feature_paths: list[Path]
    splits: list[str] | None
    """`train`, `val` or `test`."""
    folds: Tensor | None
    """(S,) int64, the fold in which a slide is tested."""


def read_manifest(
    path: str | Path,
    classes: Sequence[str] | Mapping[str, int] | None = None,
    root: str | Path | None = None,
    labels: str | Path | None = None,
) -> Manifest:
    """Read `slide_id,label,feature_path` and, where present, `case_id`, `split` and `fold`; other columns are ignored.

    Args:
        path: CSV file, or what else `feature_table` reads.
        classes: names of the labels in order, or the index of each (several names may share one); None = the labels
            are the integers 0..C-1 themselves.
        root: folder from which relative feature paths start; None = the manifest's own.
        labels: CSV of labels for a folder of features.

    Raises:
        UserError: naming file and line: an unreadable file, a missing column, an empty cell, a repeated slide, a label
            outside the classes, an unknown split word, a fold that is no integer, a feature file that is missing, or a
            relative path that leaves `root`.
    """
    table, own_folder = feature_table(path, labels)
    path = labels or path
    if "label" not in table:
        raise UserError(f"{path}: column 'label' is missing; it has {', '.join(map(repr, table.columns))}")
    for column in {"slide_id", "feature_path", "case_id"}.intersection(table.columns):
        for line in table.index[table[column] == ""]:
            raise UserError(f"{path}, line {line}: {column} is empty")
    for line in table.index[table["slide_id"].duplicated()]:
        raise UserError(f"{path}, line {line}: slide {table['slide_id'][line]!r} is listed twice")
    numbers, class_names = _labels(path, table["label"], classes)
    folder = own_folder if root is None else Path(root)
    return Manifest(
        slide_ids=table["slide_id"].tolist(),
        case_ids=table["case_id"].tolist() if "case_id" in table else None,
        labels=numbers,
        class_names=class_names,
        feature_paths=[_inside(path, line, folder, name) for line, name in table["feature_path"].items()],
        splits=_splits(path, table["split"]) if "split" in table else None,
        folds=_integers(path, table["fold"]) if "fold" in table else None,
    )


def _labels(
    path: str | Path, column: pd.Series, classes: Sequence[str] | Mapping[str, int] | None
) -> tuple[Tensor, tuple[str, ...]]:
    if classes is None:
        index = _own_classes(path, column)
    elif isinstance(classes, Mapping):
        index = {str(name): number for name, number in classes.items()}
    else:
        index = {str(name): number for number, name in enumerate(classes)}
    numbers = sorted(set(index.values()))
    if numbers != list(range(len(numbers))):
        raise UserError(f"data.classes={index}: the indices must be 0..C-1 without a gap")
    for line, label in column.items():
        if label not in index:
            raise UserError(f"{path}, line {line}: label {label!r} is outside the classes; {closest(label, index)}")
    names = tuple("+".join(name for name in index if index[name] == number) for number in numbers)
    return torch.tensor(column.map(index).tolist()), names


def _own_classes(path: str | Path, column: pd.Series) -> dict[str, int]:
    labels = sorted(set(column))
    words = [label for label in labels if not label.isdigit()]
    if 0 < len(words) < len(labels):
        line = column.index[column == words[0]][0]
        raise UserError(f"{path}, line {line}: label {words[0]!r} is not a number 0, 1, 2, ...")
    if sorted(labels) != sorted(str(number) for number in range(len(labels))):
        raise UserError(
            f"{path}: labels {', '.join(labels)} are not the integers 0..C-1: "
            f"name the classes in order, data.classes=[{','.join(labels)}]"
        )
    return {str(number): number for number in range(len(labels))}


def _splits(path: str | Path, column: pd.Series) -> list[str]:
    for line, word in column.items():
        if word not in PARTS:
            raise UserError(f"{path}, line {line}: split {word!r} is none of {', '.join(PARTS)}")
    return column.tolist()


def _integers(path: str | Path, column: pd.Series) -> Tensor:
    for line, word in column.items():
        if not word.isdigit():
            raise UserError(f"{path}, line {line}: fold {word!r} is not a number 0, 1, 2, ...")
    return torch.tensor(column.astype(int).tolist())


def _inside(path: str | Path, line: object, folder: Path, name: str) -> Path:
    """An existing `folder/name`; an absolute name says plainly where it leads, a relative one stays in the folder."""
    if os.path.normpath(name).split(os.sep)[0] == os.pardir:
        raise UserError(f"{path}, line {line}: feature_path {name!r} leaves {folder}: give an absolute path")
    if not (folder / name).is_file():
        raise UserError(f"{path}, line {line}: there is no feature file {folder / name}")
    return folder / name
