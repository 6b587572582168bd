"""The manifest of a set of feature bags: one CSV row per slide, checked line by line."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from kd_mil.core.errors import UserError
from kd_mil.core.tables import require_columns
from kd_mil.data.classes import Classes, class_index, class_names, class_of
from kd_mil.data.features.layouts import existing_features, feature_table
from kd_mil.slides.slide_list import fold_of, split_of


class Manifest(NamedTuple):
    """S slides; every list has one entry per slide."""

    slide_ids: list[str]
    case_ids: list[str] | None
    """None where the manifest has no `case_id`: every slide is a case of its own."""
    labels: Tensor
    """(S,) int64."""
    class_names: tuple[str, ...]
    feature_paths: list[Path]
    splits: list[str | None]
    """`train`, `val` or `test`; None where the manifest does not say."""
    folds: list[int | None]
    """The fold in which a slide is tested; None where the manifest does not say."""


def read_manifest(
    path: str | Path,
    classes: Classes = None,
    root: str | Path | None = None,
    labels: str | Path | None = None,
) -> Manifest:
    """Read `slide_id,label,feature_path` and, where present, `case_id`, `split` and `fold`; other columns are ignored.

    Args:
        path: CSV file, or what else `feature_table` reads.
        classes: as in `Classes`.
        root: folder from which relative feature paths start; None = the manifest's own.
        labels: CSV of labels for a folder of features.

    Raises:
        UserError: naming file and line: an unreadable file, a missing column, an empty cell, a repeated slide, a label
            outside the classes, an unknown split word, a fold that is no integer, a feature file that is missing, or a
            relative path that leaves `root`.
    """
    table, folder = feature_table(path, labels)
    source = str(labels or path)
    require_columns(table, ("label",), source)
    for column in ("label", "case_id"):
        for line in table.index[table[column] == ""] if column in table else ():
            raise UserError(f"{source}, line {line}: {column} is empty")
    index = class_index(table["label"], classes, source)
    wheres = [f"{source}, line {line}" for line in table.index]
    rows = list(zip(table.to_dict("records"), wheres, strict=True))
    start = folder if root is None else Path(root)
    return Manifest(
        slide_ids=table["slide_id"].tolist(),
        case_ids=table["case_id"].tolist() if "case_id" in table else None,
        labels=torch.tensor([class_of(row["label"], index, where) for row, where in rows]),
        class_names=class_names(index),
        feature_paths=[existing_features(start, row["feature_path"], where) for row, where in rows],
        splits=[split_of(row, where) for row, where in rows],
        folds=[fold_of(row, where) for row, where in rows],
    )
