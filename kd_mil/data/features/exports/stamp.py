"""Feature bags written in the layout of STAMP (https://github.com/KatherLab/STAMP, version 2)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

from kd_mil.core.atomic import atomic_path
from kd_mil.core.errors import UserError
from kd_mil.data.features.exports.export import exported, single_precision, write_csv
from kd_mil.data.features.files.feature_file import FeatureFile
from kd_mil.data.features.files.tile_facts import tile_facts


def export_stamp(table: pd.DataFrame, folder: Path, out: Path) -> pd.DataFrame:
    """STAMP: `features/ID.h5` (`feats` float32, `coords` in µm), `slide.csv`, and with labels `clini.csv`.

    Args:
        table: as from `layouts.feature_table`; slides without a `case_id` are patients of their own.
        folder: from which its paths start.
        out: made if need be; files of the same name are replaced.

    Returns:
        The summary, see `export.exported`.

    Raises:
        UserError: slides of one patient with different labels, which STAMP cannot tell apart; no slide could be
            written.
    """
    patients = table["case_id"] if "case_id" in table else table["slide_id"]
    clini = _clini(patients, table["label"]) if "label" in table else None

    def write(row: Mapping[str, Any], bag: FeatureFile) -> None:
        facts, features = tile_facts(bag, row), single_precision(bag)
        if facts.slide_mpp is None:
            raise UserError(f"{bag.path} says nothing of µm per pixel, in which STAMP counts: add a column mpp")
        attributes = {
            "extractor": facts.encoder,
            "unit": "um",
            "tile_size_um": facts.size_level0 * facts.slide_mpp,
            "feat_type": "tile",
        }
        attributes |= {} if facts.size is None else {"tile_size_px": facts.size}
        with atomic_path(out / "features" / f"{row['slide_id']}.h5") as path, h5py.File(path, "w") as file:
            file["coords"], file["feats"] = (facts.coords * facts.slide_mpp).astype(np.float32), features
            file.attrs.update(attributes)

    summary = exported(table, folder, out, write)
    done = (summary["status"] == "written").to_numpy()
    slides = pd.DataFrame({"PATIENT": patients, "FILENAME": table["slide_id"] + ".h5"})[done]
    write_csv(out / "slide.csv", slides)
    if clini is not None:
        write_csv(out / "clini.csv", clini[clini["PATIENT"].isin(slides["PATIENT"])])
    return summary


def _clini(patients: pd.Series, labels: pd.Series) -> pd.DataFrame:
    """One label for each patient."""
    table = pd.DataFrame({"PATIENT": patients, "label": labels}).drop_duplicates()
    for patient in table["PATIENT"][table["PATIENT"].duplicated()]:
        both = " and ".join(map(repr, table["label"][table["PATIENT"] == patient]))
        raise UserError(
            f"slides of case {patient!r} are labelled {both}: STAMP has one label for each patient; correct them, or "
            "leave the column case_id out"
        )
    return table
