"""A set of features in the layout of another tool."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import DictConfig, OmegaConf

from kd_mil.core.atomic import require_writable
from kd_mil.core.errors import UserError
from kd_mil.data.features.exports.export import export_clam, export_torchmil
from kd_mil.data.features.exports.spatialdata import export_spatialdata
from kd_mil.data.features.exports.stamp import export_stamp
from kd_mil.data.features.exports.trident import export_trident
from kd_mil.data.features.files.layouts import feature_table
from kd_mil.data.features.remote import RemoteFiles
from kd_mil.slides.label_columns import LabelColumns


def main(config: DictConfig) -> None:
    """Write a set of features in another layout."""
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    remote = RemoteFiles(Path(plain["paths"]["cache_dir"]) / "remote")
    columns = LabelColumns(plain["label_column"], remote.here(plain["clini"]))
    table, folder = feature_table(remote.with_features(plain["features"]), remote.here(plain["labels"]), columns)
    out = Path(plain["out"]).absolute()
    refuse_own_folder(out, folder, table["feature_path"])
    require_writable(out)
    classes, tumour_threshold = plain["classes"], plain["tumour_threshold"]
    writers: dict[str, Callable[[], pd.DataFrame]] = {
        "clam": lambda: export_clam(table, folder, out),
        "stamp": lambda: export_stamp(table, folder, out),
        "torchmil": lambda: export_torchmil(table, folder, out, classes, tumour_threshold),
        "trident": lambda: export_trident(table, folder, out, classes),
        "spatialdata": lambda: export_spatialdata(table, folder, out, tumour_threshold),
    }
    summary = writers[plain["format"]]()
    written = int((summary["status"] == "written").sum())
    failed = f", {len(summary) - written} could not be read: see summary.csv" if written < len(summary) else ""
    print(f"{written} slides in {out}{failed}")


def refuse_own_folder(out: Path, folder: Path, names: Iterable[str]) -> None:
    """Refuse results that could replace the files they are made from: STAMP's layout has them in `features/`, as ours.

    Args:
        out: where the results go.
        folder: from which the names of the files start.
        names: of the files.

    Raises:
        UserError: `out` is the folder, or any of the files lies in it, however deep.
    """
    place, start = out.resolve(), folder.resolve()
    if place == start or any((start / name).resolve().is_relative_to(place) for name in names):
        raise UserError(f"out={out} is where the features are: choose another folder")
