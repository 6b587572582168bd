"""Feature bags written in the layouts of CLAM and torchmil."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import h5py
import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from kd_mil.core.atomic import atomic_path
from kd_mil.core.errors import UserError
from kd_mil.data.classes import Classes, class_index, class_of
from kd_mil.data.features.files import FeatureFile
from kd_mil.data.splits import PARTS


def export_clam(table: pd.DataFrame, folder: Path, out: Path) -> None:
    """CLAM: `h5_files/ID.h5`, `pt_files/ID.pt`, `dataset.csv` with labels, `splits/splits_0*.csv` with a split.

    Features become float32, coordinates int32. Slides without coordinates have no h5 file.

    Args:
        table: as from `layouts.feature_table`.
        folder: from which its paths start.
        out: made if need be; files of the same name are replaced.
    """
    for name, bag in _bags(table, folder):
        features, coords = _features(bag), bag.coords()
        with atomic_path(out / "pt_files" / f"{name}.pt") as path:
            torch.save(torch.from_numpy(features), path)
        if coords is not None:
            with atomic_path(out / "h5_files" / f"{name}.h5") as path, h5py.File(path, "w") as file:
                file["features"], file["coords"] = features, coords.numpy().astype(np.int32)
    if "label" in table:
        cases = table["case_id"] if "case_id" in table else table["slide_id"]
        columns = {"case_id": cases, "slide_id": table["slide_id"], "label": table["label"]}
        _write_csv(out / "dataset.csv", pd.DataFrame(columns))
    if "split" in table:
        _write_clam_splits(table, out / "splits")


def _write_clam_splits(table: pd.DataFrame, out: Path) -> None:
    parts = {part: table.loc[table["split"] == part, "slide_id"].reset_index(drop=True) for part in PARTS}
    _write_csv(out / "splits_0.csv", pd.DataFrame(parts), index=True)
    chosen = pd.concat([pd.Series(part, index=ids) for part, ids in parts.items()])
    _write_csv(out / "splits_0_bool.csv", pd.DataFrame({part: chosen == part for part in PARTS}), index=True)
    if "label" in table:
        counts = pd.crosstab(table["label"], table["split"]).reindex(columns=PARTS, fill_value=0)
        _write_csv(out / "splits_0_descriptor.csv", counts.rename_axis(None), index=True)


def export_torchmil(table: pd.DataFrame, folder: Path, out: Path, classes: Classes, tumour_threshold: float) -> None:
    """torchmil: `features`, `labels`, `patch_labels`, `coords` with `ID.npy` each, and `splits.csv` (`bag_name,split`).

    Features become float32 (N, D); labels int64 (1,), patch labels (N,), coordinates (N, 2). Slides whose patch labels
    or coordinates are not known have no file of them.

    Args:
        table: as from `layouts.feature_table`; with labels.
        folder: from which its paths start.
        out: made if need be; files of the same name are replaced.
        classes: as in `Classes`.
        tumour_threshold: least tumour area of a positive patch, where files hold areas.

    Raises:
        UserError: no labels, or one without an index.
    """
    if "label" not in table:
        raise UserError("torchmil needs labels: give labels=CSV with the columns slide_id,label")
    index = class_index(table["label"], classes, "the table", setting="classes")
    rows = zip(table["slide_id"], table["label"], strict=True)
    numbers = [class_of(label, index, f"slide {slide_id!r}") for slide_id, label in rows]
    for (name, bag), number in zip(_bags(table, folder), numbers, strict=True):
        patch_labels, coords = bag.instance_labels(tumour_threshold), bag.coords()
        arrays = {"features": _features(bag), "labels": np.array([number])}
        arrays |= {} if coords is None else {"coords": coords.numpy()}
        arrays |= {"patch_labels": patch_labels.numpy()} if (patch_labels >= 0).all() else {}
        for kind, array in arrays.items():
            _write(out / kind / f"{name}.npy", lambda file, array=array: np.save(file, array))  # type: ignore[misc]
    if "split" in table:
        splits = pd.DataFrame({"bag_name": table["slide_id"], "split": table["split"]})
        _write_csv(out / "splits.csv", splits)


def _bags(table: pd.DataFrame, folder: Path) -> Iterator[tuple[str, FeatureFile]]:
    """Names and files; all are opened once before the first, so that a damaged one stops before anything is written."""
    paths = [folder / name for name in table["feature_path"]]
    for path in paths:
        FeatureFile(path)
    rows = list(zip(table["slide_id"], paths, strict=True))
    for name, path in tqdm(rows, desc="export", unit="slide", disable=None, leave=False):
        yield name, FeatureFile(path)


def _features(bag: FeatureFile) -> np.ndarray:
    return bag.read(torch.arange(bag.num_instances), torch.float32).numpy()


def _write(path: Path, write: Callable[[IO[bytes]], None]) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        write(file)


def _write_csv(path: Path, table: pd.DataFrame, index: bool = False) -> None:
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=index)
