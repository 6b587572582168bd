"""The manifest of a set of feature bags: one CSV row per slide, checked line by line."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from kd_mil.core.errors import UserError
from kd_mil.core.object_stores import is_remote, joined
from kd_mil.core.tables import require_columns
from kd_mil.data.classes import Classes, class_index, class_names, class_of
from kd_mil.data.features.files.layouts import existing_features, feature_table
from kd_mil.data.features.remote import RemoteFiles
from kd_mil.slides.label_columns import LabelColumns, fold_columns
from kd_mil.slides.slide_list import fold_of, mpp_of, split_of


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
    mpps: list[float | None]
    """µm per level-0 pixel of the slides, for coordinates in micrometres; None where the manifest does not say."""
    is_of_fold: bool
    """The parts are already those of one fold, of a table with a column for each."""
    folder: Path
    """Of the manifest, or the folder of features itself."""


def read_manifest(
    path: str | Path,
    classes: Classes = None,
    root: str | Path | None = None,
    labels: str | Path | None = None,
    columns: LabelColumns | None = None,
    cache_dir: Path = Path(".cache/kd_mil"),
) -> Manifest:
    """Read `slide_id,label,feature_path` and, where present, `case_id`, `split`, `fold`, `mpp`; others are ignored.

    Args:
        path: CSV file, or what else `feature_table` reads.
        classes: as in `Classes`.
        root: folder from which relative feature paths start; None = the manifest's own.
        labels: CSV of labels for a folder of features.
        columns: what the table does not say itself.
        cache_dir: holds copies of what any of these names by a URL, features included.

    Raises:
        UserError: naming file and line: an unreadable file, a missing column, an empty cell, a repeated slide, a label
            outside the classes, an unknown split word, a fold or an mpp that is no such number, a feature file that is
            missing, or a relative path that leaves `root`.
    """
    remote, columns = RemoteFiles(cache_dir / "remote"), columns or LabelColumns()
    columns = replace(columns, clini=remote.here(columns.clini))
    here = Path(remote.here(path) or path)
    table, folder = feature_table(here, remote.here(labels), columns)
    source = str(labels or path)
    require_columns(table, ("label",), source)
    for column in ("label", "case_id"):
        for line in table.index[table[column] == ""] if column in table else ():
            raise UserError(f"{source}, line {line}: {column} is empty")
    index = class_index(table["label"], classes, source)
    wheres = [f"{source}, line {line}" for line in table.index]
    rows = list(zip(table.to_dict("records"), wheres, strict=True))
    start = str(folder if root is None else root)
    if root is None and is_remote(path) and not here.is_dir():
        start = str(path).rpartition("/")[0]
    return Manifest(
        slide_ids=table["slide_id"].tolist(),
        case_ids=table["case_id"].tolist() if "case_id" in table else None,
        labels=torch.tensor([class_of(row["label"], index, where) for row, where in rows]),
        class_names=class_names(index),
        feature_paths=_feature_paths(rows, start, remote),
        splits=[split_of(row, where) for row, where in rows],
        folds=[fold_of(row, where) for row, where in rows],
        mpps=[mpp_of(row, where) for row, where in rows],
        is_of_fold=bool(fold_columns(table.drop(columns="split", errors="ignore"))),
        folder=here if here.is_dir() else here.parent,
    )


def _feature_paths(rows: Sequence[tuple[Mapping[str, str], str]], start: str, remote: RemoteFiles) -> list[Path]:
    """The feature files of rows and where they stand, from their folder on; those in object stores are copied here."""
    urls = [joined(start, row["feature_path"]) for row, _ in rows]
    copies = iter(remote.files([url for url in urls if is_remote(url)]))
    return [
        next(copies) if is_remote(url) else existing_features(Path(start), row["feature_path"], where)
        for url, (row, where) in zip(urls, rows, strict=True)
    ]
