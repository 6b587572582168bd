"""Feature bags written in the layout of TRIDENT (https://github.com/mahmoodlab/TRIDENT)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import pandas as pd

from kd_mil.core.atomic import atomic_path
from kd_mil.core.errors import UserError
from kd_mil.data.classes import Classes, class_index, class_of
from kd_mil.data.features.exports.export import exported, single_precision, write_csv
from kd_mil.data.features.files.feature_file import FeatureFile
from kd_mil.data.features.files.tile_facts import TileFacts, tile_facts


def export_trident(table: pd.DataFrame, folder: Path, out: Path, classes: Classes) -> pd.DataFrame:
    """TRIDENT: `{mag}x_{size}px_{overlap}px_overlap/features_{encoder}/ID.h5` and `.../patches/ID_patches.h5`.

    Features become float32. `labels.csv` has `slide_id,label`, for torchmil's `TridentWSIDataset`: numbers, where
    labels are numbers or classes are given, else names.

    Args:
        table: as from `layouts.feature_table`.
        folder: from which its paths start.
        out: made if need be; files of the same name are replaced.
        classes: as in `Classes`.

    Returns:
        The summary, see `export.exported`.

    Raises:
        UserError: a label outside the classes; no slide could be written.
    """
    labels = _labels(table, classes)

    def write(row: Mapping[str, Any], bag: FeatureFile) -> None:
        name, facts, features = row["slide_id"], tile_facts(bag, row), single_precision(bag)
        if facts.size is None or facts.magnification is None:
            raise UserError(f"{bag.path} does not say the size of its tiles in pixels and their resolution")
        job = out / f"{facts.magnification:g}x_{facts.size}px_{facts.overlap}px_overlap"
        attributes = _attributes(facts, name, str(job))
        with atomic_path(job / "patches" / f"{name}_patches.h5") as path, h5py.File(path, "w") as file:
            file.create_dataset("coords", data=facts.coords).attrs.update(attributes)
        with atomic_path(job / f"features_{facts.encoder}" / f"{name}.h5") as path, h5py.File(path, "w") as file:
            file.create_dataset("coords", data=facts.coords).attrs.update(attributes)
            file.create_dataset("features", data=features).attrs.update(
                {"name": name, "savetodir": str(job), "encoder": facts.encoder}
            )

    summary = exported(table, folder, out, write)
    if labels is not None:
        done = (summary["status"] == "written").to_numpy()
        write_csv(out / "labels.csv", pd.DataFrame({"slide_id": table["slide_id"], "label": labels})[done])
    return summary


def _attributes(facts: TileFacts, name: str, job: str) -> dict[str, Any]:
    """Attributes of the positions; those that nobody knows are left out."""
    width, height = facts.extent or (None, None)
    known = {
        "patch_size": facts.size,
        "patch_size_level0": facts.size_level0,
        "level0_magnification": facts.level0_magnification,
        "target_magnification": facts.magnification,
        "overlap": facts.overlap,
        "name": name,
        "savetodir": job,
        "level0_width": width,
        "level0_height": height,
    }
    return {key: value for key, value in known.items() if value is not None}


def _labels(table: pd.DataFrame, classes: Classes) -> list[Any] | None:
    """Numbers where they are known, else the names; None without labels."""
    if "label" not in table:
        return None
    labels = table["label"].tolist()
    if classes is None and not all(label.isdecimal() for label in labels):
        return labels
    index = class_index(labels, classes, "the table", setting="classes")
    return [class_of(label, index, f"slide {name!r}") for name, label in zip(table["slide_id"], labels, strict=True)]
