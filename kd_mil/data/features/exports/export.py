"""Feature bags written in the layouts of CLAM and torchmil."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import h5py
import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from kd_mil.core.atomic import atomic_path
from kd_mil.core.checks import harmless
from kd_mil.core.errors import UserError, one_line
from kd_mil.data.classes import Classes, class_index, class_of
from kd_mil.data.features.files.feature_file import FeatureFile
from kd_mil.data.features.files.layouts import existing_features
from kd_mil.data.features.files.tile_facts import slide_mpp_of
from kd_mil.data.splits import PARTS

WriteBag = Callable[[Mapping[str, Any], FeatureFile], None]
"""Writes the files of one row of the table."""


def export_clam(table: pd.DataFrame, folder: Path, out: Path) -> pd.DataFrame:
    """CLAM: `h5_files/ID.h5`, `pt_files/ID.pt`, `dataset.csv` with labels, `splits/splits_0*.csv` with a split.

    Features become float32, coordinates int32. Slides without coordinates in pixels have no h5 file; those in
    micrometres (STAMP) are scaled by a column `mpp` of the table, µm per level-0 pixel.

    Args:
        table: as from `layouts.feature_table`.
        folder: from which its paths start.
        out: made if need be; files of the same name are replaced.

    Returns:
        The summary, see `exported`.

    Raises:
        UserError: no slide could be read.
    """

    def write(row: Mapping[str, Any], bag: FeatureFile) -> None:
        name, features, coords = row["slide_id"], single_precision(bag), bag.coords(slide_mpp_of(bag, row))
        with atomic_path(out / "pt_files" / f"{name}.pt") as path:
            torch.save(torch.from_numpy(features), path)
        if coords is not None:
            with atomic_path(out / "h5_files" / f"{name}.h5") as path, h5py.File(path, "w") as file:
                file["features"], file["coords"] = features, coords.numpy().astype(np.int32)

    summary = exported(table, folder, out, write)
    done = table[(summary["status"] == "written").to_numpy()]
    if "label" in done:
        cases = done["case_id"] if "case_id" in done else done["slide_id"]
        columns = {"case_id": cases, "slide_id": done["slide_id"], "label": done["label"]}
        write_csv(out / "dataset.csv", pd.DataFrame(columns))
    if "split" in done:
        _write_clam_splits(done, out / "splits")
    return summary


def _write_clam_splits(table: pd.DataFrame, out: Path) -> None:
    parts = {part: table.loc[table["split"] == part, "slide_id"].reset_index(drop=True) for part in PARTS}
    write_csv(out / "splits_0.csv", pd.DataFrame(parts), index=True)
    chosen = pd.concat([pd.Series(part, index=ids) for part, ids in parts.items()])
    write_csv(out / "splits_0_bool.csv", pd.DataFrame({part: chosen == part for part in PARTS}), index=True)
    if "label" in table:
        counts = pd.crosstab(table["label"], table["split"]).reindex(columns=PARTS, fill_value=0)
        write_csv(out / "splits_0_descriptor.csv", counts.rename_axis(None), index=True)


def export_torchmil(
    table: pd.DataFrame, folder: Path, out: Path, classes: Classes, tumour_threshold: float
) -> pd.DataFrame:
    """torchmil: `features`, `labels`, `patch_labels`, `coords` with `ID.npy` each, and `splits.csv` (`bag_name,split`).

    Features become float32 (N, D); labels int64 (1,), patch labels (N,), coordinates (N, 2). Slides whose patch labels
    or coordinates are not known have no file of them.

    Args:
        table: as from `layouts.feature_table`; with labels.
        folder: from which its paths start.
        out: made if need be; files of the same name are replaced.
        classes: as in `Classes`.
        tumour_threshold: least tumour area of a positive patch, where files hold areas.

    Returns:
        The summary, see `exported`.

    Raises:
        UserError: no labels, or one without an index; no slide could be read.
    """
    if "label" not in table:
        raise UserError("torchmil needs labels: give labels=CSV with the columns slide_id,label")
    index = class_index(table["label"], classes, "the table", setting="classes")
    rows = zip(table["slide_id"], table["label"], strict=True)
    numbers = {slide_id: class_of(label, index, f"slide {slide_id!r}") for slide_id, label in rows}

    def write(row: Mapping[str, Any], bag: FeatureFile) -> None:
        name, patch_labels = row["slide_id"], bag.instance_labels(tumour_threshold)
        coords = bag.coords(slide_mpp_of(bag, row))
        arrays = {"features": single_precision(bag), "labels": np.array([numbers[name]])}
        arrays |= {} if coords is None else {"coords": coords.numpy()}
        arrays |= {"patch_labels": patch_labels.numpy()} if (patch_labels >= 0).all() else {}
        for kind, array in arrays.items():
            _write(out / kind / f"{name}.npy", lambda file, array=array: np.save(file, array))  # type: ignore[misc]

    summary = exported(table, folder, out, write)
    done = table[(summary["status"] == "written").to_numpy()]
    if "split" in done:
        splits = pd.DataFrame({"bag_name": done["slide_id"], "split": done["split"]})
        write_csv(out / "splits.csv", splits)
    return summary


def exported(table: pd.DataFrame, folder: Path, out: Path, write: WriteBag) -> pd.DataFrame:
    """Write all slides that can be read, and `summary.csv`: `slide_id,status,message` (written or failed) of each.

    Raises:
        UserError: no slide could be read.
        OSError: the folder cannot be written.
    """
    rows = table.to_dict("records")
    summary = pd.DataFrame({"slide_id": table["slide_id"].to_numpy(), "status": "written", "message": ""})
    for number, row in enumerate(tqdm(rows, desc="export", unit="slide", disable=None, leave=False)):
        try:
            write(row, FeatureFile(existing_features(folder, row["feature_path"], row["slide_id"])))
        except OSError:  # of a disk that cannot be written: so it will be for the next one
            raise
        except Exception as error:  # whatever it is, the other slides are written
            line = "out of memory" if isinstance(error, MemoryError) else one_line(error)
            tqdm.write(f"skipped {row['slide_id']}: {line}", file=sys.stderr)
            summary.loc[number, ["status", "message"]] = "failed", harmless(line)
    failed = summary[summary["status"] == "failed"]
    if len(failed) == len(summary):
        more = f" ({len(failed) - 1} more slides failed, too)" if len(failed) > 1 else ""
        raise UserError(f"no slide could be read: {failed['message'].iloc[0]}{more}")
    write_csv(out / "summary.csv", summary)
    return summary


def single_precision(bag: FeatureFile) -> np.ndarray:
    """The features (N, D) of a bag as float32, which all tools read."""
    return bag.read_all(torch.float32).numpy()


def _write(path: Path, write: Callable[[IO[bytes]], None]) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        write(file)


def write_csv(path: Path, table: pd.DataFrame, index: bool = False) -> None:
    """Write a table that is either whole or not there."""
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=index)
