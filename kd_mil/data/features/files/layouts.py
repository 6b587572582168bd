"""Sets of feature bags as other tools write them, for training and prediction."""

import os
from pathlib import Path

import numpy as np
import pandas as pd

from kd_mil.core.errors import UserError
from kd_mil.core.readable import readable
from kd_mil.core.tables import by_part, read_table, require_columns
from kd_mil.data.features.files.arrays import SUFFIXES, is_feature_file
from kd_mil.slides.label_columns import LabelColumns, completed
from kd_mil.slides.slide_labels import LABEL_COLUMNS, read_labels
from kd_mil.slides.slide_list import check_names

FOLDERS = ("h5_files", "pt_files", "features", "tile_embeddings")
"""Where in a folder feature files lie, if not in the folder itself: CLAM's two, torchmil's and ours, slide2vec's."""
DSMIL_COLUMNS = ["0", "label"]


EVA_COLUMNS = {"embeddings": "feature_path", "target": "label"}
"""Names in eva's manifest of embeddings for columns of ours; `wsi_id` names the slide or, where it is not, `origin`."""


def feature_table(
    source: str | Path, labels: str | Path | None = None, columns: LabelColumns | None = None
) -> tuple[pd.DataFrame, Path]:
    """The slides of a set: `slide_id`, `feature_path` and, where known, `label`, `case_id`, `split`, `fold`, as text.

    Args:
        source: a CSV (ours, DSMIL's with the columns `0,label`, eva's, MIL_BASELINE's), or a folder: of
            `kd_mil.extract`, of torchmil (`features/`, `labels/`, ...), of CLAM (`h5_files/` or `pt_files/`), or of
            feature files, as TRIDENT's and STAMP's.
        labels: CSV with `slide_id` (STAMP: `FILENAME`), where wanted `label`, `case_id` (`PATIENT`), `split`, `fold`,
            or one of Patho-Bench or TransMIL; for folders. Slides without a line are left out.
        columns: what the table does not say itself.

    Returns:
        The table, whose index is the line in its file, and the folder from which its paths start.

    Raises:
        UserError: nothing found, a malformed table, a listed slide without features, or `labels` beside a CSV.
    """
    path = Path(source)
    if path.is_dir() and (path / "manifest.csv").is_file() and labels is None:
        path = path / "manifest.csv"
    if path.is_dir():
        table = _folder_table(path, labels, columns)
        return _checked(table, path if labels is None else labels, lines=labels is not None), path
    if labels is not None:
        raise UserError(f"labels={labels} go with a folder of features: {path} is a table and has its own")
    return listed_table(path, columns)


def listed_table(path: Path, columns: LabelColumns | None = None) -> tuple[pd.DataFrame, Path]:
    """The slides of a CSV, ours or another tool's, and the folder from which its paths start."""
    table, folder = read_table(path, (), ("slide_id", "feature_path", *LABEL_COLUMNS)), path.parent
    if table.columns.tolist() == DSMIL_COLUMNS:
        table, folder = _dsmil_table(path, table)
    elif set(EVA_COLUMNS) <= set(table):
        table = _eva_table(table, path)
    elif {"slide_path", "label"} == set(table) and all(is_feature_file(Path(cell)) for cell in table["slide_path"]):
        names = table["slide_path"].map(lambda name: Path(name).stem)  # MIL_BASELINE
        table = table.rename(columns={"slide_path": "feature_path"}).assign(slide_id=names)
    table = completed(by_part(table, path), columns or LabelColumns(), path)
    require_columns(table, ("slide_id", "feature_path"), path)
    return _checked(table, path), folder


def _checked(table: pd.DataFrame, source: str | Path, lines: bool = True) -> pd.DataFrame:
    """The table, if its ids are unique and, as its labels, fit for file names and cells; with `lines`, they are named.

    Raises:
        UserError: a slide without id or file, one listed twice, or what `check_names` refuses.
    """
    seen: set[str] = set()
    for line, row in zip(table.index, table.to_dict("records"), strict=True):
        where = f"{source}, line {line}" if lines else str(source)
        for column in ("slide_id", "feature_path"):
            if row[column] == "":
                raise UserError(f"{where}: {column} is empty")
        check_names(row, where)
        if row["slide_id"] in seen:
            raise UserError(f"{where}: slide {row['slide_id']!r} is listed twice")
        seen.add(row["slide_id"])
    return table


def _folder_table(folder: Path, labels: str | Path | None, columns: LabelColumns | None) -> pd.DataFrame:
    files = feature_files(folder)
    if labels is not None:
        table = read_labels(labels, files, f"feature files of {folder}", columns)
    else:
        table = pd.DataFrame({"slide_id": list(files)}, dtype=object)
        if (folder / "labels").is_dir():
            table["label"] = [_torchmil_label(folder / "labels" / files[name].name) for name in files]
            _add_torchmil_split(table, folder)
    table["feature_path"] = [str(files[name].relative_to(folder)) for name in table["slide_id"]]
    return table


def feature_files(folder: Path) -> dict[str, Path]:
    """Feature files by id, the name without suffix, sorted.

    They lie in one of `FOLDERS`, or in the folder itself; of a folder without any, in its one folder, as torchmil's of
    one encoder.

    Raises:
        UserError: no such folder, no files, or two of the same id.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    inside = next((folder / name for name in FOLDERS if (folder / name).is_dir()), folder)
    visible = sorted(path for path in inside.iterdir() if path.name[0] != ".")
    folders = [path for path in visible if path.is_dir()]
    files = [path for path in visible if is_feature_file(path) and path not in folders]
    if not files and len(folders) == 1:
        return feature_files(folders[0])
    if not files:
        names = ", ".join(path.name for path in folders)
        hint = f": give one of its folders {names}" if folders else ""
        raise UserError(f"{inside} has no feature files ({', '.join(SUFFIXES)}){hint}")
    by_id: dict[str, Path] = {}
    for path in files:
        if path.stem in by_id:
            raise UserError(f"{folder}: slide {path.stem!r} has two files, {by_id[path.stem]} and {path}: remove one")
        by_id[path.stem] = path
    return by_id


def existing_features(folder: Path, name: str, where: str) -> Path:
    """A feature file that is there; an absolute name says plainly where it leads, a relative one stays in the folder.

    Raises:
        UserError: beginning with `where`: it leaves the folder, or is not there.
    """
    if os.path.normpath(name).split(os.sep)[0] == os.pardir:
        raise UserError(f"{where}: feature_path {name!r} leaves {folder}: give an absolute path")
    if not (folder / name).is_file():
        raise UserError(f"{where}: there is no feature file {folder / name}")
    return folder / name


def _add_torchmil_split(table: pd.DataFrame, folder: Path) -> None:
    """The column `split` of a `splits.csv` in the folder or, as in torchmil's Camelyon16, beside it."""
    path = next((path for path in (folder / "splits.csv", folder.parent / "splits.csv") if path.is_file()), None)
    if path is not None:
        splits = read_table(path, ("bag_name", "split")).drop_duplicates("bag_name").set_index("bag_name")["split"]
        table["split"] = table["slide_id"].map(splits).fillna("")


def _torchmil_label(path: Path) -> str:
    if not path.is_file():
        raise UserError(f"{path} is missing: every bag of a torchmil set has a label file")
    with readable(path):
        label = np.load(path, allow_pickle=False).flatten()
    if label.size != 1:
        raise UserError(f"{path} holds {label.size} labels: one is expected")
    return str(int(label[0]))


def _eva_table(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """eva's manifest of embeddings; the files hold one tensor or a list of them."""
    require_columns(table, ("origin",), path)
    names = table["wsi_id"] if "wsi_id" in table else table["origin"].map(lambda name: Path(name).stem)
    return table.rename(columns=EVA_COLUMNS).assign(slide_id=names)


def _dsmil_table(path: Path, table: pd.DataFrame) -> tuple[pd.DataFrame, Path]:
    """DSMIL's list: paths of the bags' CSV files, from the folder in which it was written."""
    first = table["0"].iloc[0]
    roots = [folder for folder in path.absolute().parents if (folder / first).is_file()]
    if not roots:
        raise UserError(f"{path}: there is no {first} in its folder or in one above")
    label = table["label"].str.removesuffix(".0")
    names = table["0"].map(lambda name: Path(name).stem)
    return pd.DataFrame({"slide_id": names, "label": label, "feature_path": table["0"]}), roots[0]
