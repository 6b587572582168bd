"""Sets of feature bags as CLAM, TRIDENT, STAMP, torchmil and DSMIL leave them, as one table of slides."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from kd_mil.core.errors import UserError
from kd_mil.core.readable import readable
from kd_mil.core.suggestions import suggestion
from kd_mil.core.tables import read_csv
from kd_mil.data.features.files import SUFFIXES
from kd_mil.slides.slide_list import SlideEntry, mpp_of

ALIASES = {"FILENAME": "slide_id", "slide": "slide_id", "bag_name": "slide_id", "PATIENT": "case_id"}
"""Names of STAMP and torchmil for our columns."""
FOLDERS = ("h5_files", "pt_files", "features")
"""Where in a folder feature files lie, if not in the folder itself: CLAM's two, and torchmil's and ours."""
DSMIL_COLUMNS = ["0", "label"]


def feature_table(source: str | Path, labels: str | Path | None = None) -> tuple[pd.DataFrame, Path]:
    """The slides of a set: `slide_id`, `feature_path` and, where known, `label`, `case_id`, `split`, `fold`, as text.

    Args:
        source: a CSV (ours, or DSMIL's with the columns `0,label`), or a folder: of `kd_mil.extract`, of torchmil
            (`features/`, `labels/`, ...), of CLAM (`h5_files/` or `pt_files/`), or of feature files, as TRIDENT's and
            STAMP's.
        labels: CSV with `slide_id` (STAMP: `FILENAME`), where wanted `label`, `case_id` (`PATIENT`), `split`, `fold`;
            for folders. Slides without a line are left out.

    Returns:
        The table, whose index is the line in its file, and the folder from which its paths start.

    Raises:
        UserError: nothing found, a malformed table, a listed slide without features, or `labels` beside a CSV.
    """
    path = Path(source)
    if path.is_dir() and (path / "manifest.csv").is_file() and labels is None:
        path = path / "manifest.csv"
    if path.is_dir():
        return _folder_table(path, labels), path
    if labels is not None:
        raise UserError(f"labels={labels} go with a folder of features: {path} is a table and has its own")
    table = read_csv(path, ())
    if table.columns.tolist() == DSMIL_COLUMNS:
        return _dsmil_table(path, table)
    return read_csv(path, ("slide_id", "feature_path")), path.parent


def _folder_table(folder: Path, labels: str | Path | None) -> pd.DataFrame:
    inside = next((folder / name for name in FOLDERS if (folder / name).is_dir()), folder)
    files = _feature_files(inside)
    if labels is not None:
        table = _labelled(labels, files, inside)
    else:
        table = pd.DataFrame({"slide_id": list(files)}, dtype=str)
        if (folder / "labels").is_dir():
            table["label"] = [_torchmil_label(folder / "labels" / files[name].name) for name in files]
            places = (folder / "splits.csv", folder.parent / "splits.csv")
            for path in [place for place in places if place.is_file()][:1]:
                splits = read_csv(path, ("bag_name", "split")).drop_duplicates("bag_name").set_index("bag_name")
                table["split"] = table["slide_id"].map(splits["split"]).fillna("")
    table["feature_path"] = [str(files[name].relative_to(folder)) for name in table["slide_id"]]
    return table


def _feature_files(folder: Path) -> dict[str, Path]:
    """Files by name without suffix; of a folder without any, those of its one folder, as torchmil's of one encoder."""
    visible = sorted(one for one in folder.iterdir() if one.name[0] != ".")
    files = {one.stem: one for one in visible if one.suffix in SUFFIXES}
    folders = [one for one in visible if one.is_dir()]
    if not files and len(folders) == 1:
        return _feature_files(folders[0])
    if not files:
        names = ", ".join(one.name for one in folders)
        hint = f": give one of its folders {names}" if folders else ""
        raise UserError(f"{folder} has no feature files ({', '.join(SUFFIXES)}){hint}")
    return files


def _labelled(labels: str | Path, files: dict[str, Path], folder: Path) -> pd.DataFrame:
    table = _renamed(read_csv(labels, ()))
    if "slide_id" not in table:
        raise UserError(f"{labels}: column 'slide_id' (STAMP: 'FILENAME') is missing")
    # CLAM's tables name slides, TRIDENT's and STAMP's may name files.
    stems = table["slide_id"].map(lambda name: Path(name).stem)
    table["slide_id"] = table["slide_id"].where(table["slide_id"].isin(files) | ~stems.isin(files), stems)
    for line, name in table["slide_id"].items():
        if name not in files:
            raise UserError(f"{labels}, line {line}: {folder} has no features of {name!r}{suggestion(name, files)}")
    return table


def _renamed(table: pd.DataFrame) -> pd.DataFrame:
    return table.rename(columns={old: new for old, new in ALIASES.items() if new not in table})


def _torchmil_label(path: Path) -> str:
    if not path.is_file():
        raise UserError(f"{path} is missing: every bag of a torchmil set has a label file")
    with readable(path):
        label = np.load(path, allow_pickle=False).flatten()
    if label.size != 1:
        raise UserError(f"{path} holds {label.size} labels: one is expected")
    return str(int(label[0]))


def _dsmil_table(path: Path, table: pd.DataFrame) -> tuple[pd.DataFrame, Path]:
    """DSMIL's list: paths of the bags' CSV files, from the folder in which it was written."""
    first = table["0"].iloc[0]
    roots = [one for one in path.absolute().parents if (one / first).is_file()]
    if not roots:
        raise UserError(f"{path}: there is no {first} in its folder or in one above")
    label = table["label"].str.removesuffix(".0")
    names = table["0"].map(lambda name: Path(name).stem)
    return pd.DataFrame({"slide_id": names, "label": label, "feature_path": table["0"]}), roots[0]


class FeatureEntry(NamedTuple):
    """One feature file of a list."""

    slide_id: str
    path: Path
    slide: SlideEntry | None = None
    """The slide it came from, where the list names one that is there."""


def list_features(source: str | Path) -> list[FeatureEntry]:
    """Feature files of a folder (sorted), of a CSV, or one file; of a folder of `kd_mil.extract`, CLAM or torchmil,
    those in its `features/`, `h5_files/` or `pt_files/`.

    The CSV has columns `slide_id` and `feature_path` and, for pictures, may have `slide_path` and `mpp`. Relative paths
    count from its folder. Further columns are ignored.

    Raises:
        UserError: nothing found, a fault of the CSV, an id that is repeated or cannot name a file.
    """
    path = Path(source)
    if path.suffix.lower() == ".csv":
        entries = _listed_features(path)
    elif path.is_dir():
        folder = next((path / name for name in FOLDERS if (path / name).is_dir()), path)
        files = (file for file in sorted(folder.iterdir()) if file.suffix in SUFFIXES and file.name[0] != ".")
        entries = [FeatureEntry(file.stem, file) for file in files]
    else:
        entries = [FeatureEntry(path.stem, path)] if path.is_file() else []
    if not entries:
        raise UserError(f"no feature files in {str(source)!r}: give a folder, a CSV slide_id,feature_path or a file")
    seen: dict[str, Path] = {}
    for entry in entries:
        if Path(entry.slide_id).name != entry.slide_id or entry.slide_id in (".", ".."):
            raise UserError(f"{source}: slide id {entry.slide_id!r} cannot name a file: leave out slashes")
        if entry.slide_id in seen:
            raise UserError(
                f"{source}: slide {entry.slide_id!r} has two files, {seen[entry.slide_id]} and {entry.path}"
            )
        seen[entry.slide_id] = entry.path
    return entries


def _listed_features(path: Path) -> list[FeatureEntry]:
    table, entries = read_csv(path, ("slide_id", "feature_path")), []
    for line, row in zip(table.index, table.to_dict("records"), strict=True):
        slide_id, file = row["slide_id"], path.parent / row["feature_path"]
        if not file.is_file():
            raise UserError(f"{path}, line {line}: there is no feature file {file}")
        slide = path.parent / row.get("slide_path", "")
        mpp = mpp_of(row, f"{path}, line {line}")
        entries.append(
            FeatureEntry(slide_id, file, SlideEntry(slide_id, slide, slide_id, mpp=mpp) if slide.is_file() else None)
        )
    return entries
