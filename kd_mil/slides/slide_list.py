"""Which slides to work on: a folder, a pattern, or a CSV; and their labels."""

import glob
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from kd_mil.core.checks import check_cell, check_id
from kd_mil.core.errors import UserError
from kd_mil.core.suggestions import did_you_mean
from kd_mil.core.tables import read_table, require_columns
from kd_mil.slides.slide_content import check_twins

SLIDE_EXTENSIONS = (
    *(".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".svslide", ".bif", ".czi"),
    *(".png", ".jpg", ".jpeg"),
)
"""Files taken from a folder; a pattern or a CSV may name any."""
FEATURE_EXTENSIONS = (".h5", ".hdf5", ".pt", ".pth", ".npy", ".npz")
"""Of feature files, whose names may stand for slides in a table of labels."""
LIST_COLUMNS = ("slide_path", "wsi", "slide_id", "case_id", "label", "split", "fold", "mpp", "annotation_path")
RESULT_COLUMNS = ("feature_path", "coords_path")
"""Of a manifest of `kd_mil.extract`, which may be a slide list."""
LABEL_COLUMNS = ("label", "case_id", "split", "fold")
ALIASES = {"FILENAME": "slide_id", "slide": "slide_id", "bag_name": "slide_id", "PATIENT": "case_id"}
"""Names of STAMP and torchmil for columns of ours."""
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class SlideEntry:
    """One slide of a list."""

    slide_id: str
    """Unique, and fit for a file name; the file's name without its last extension where the list gives none."""
    path: Path
    case_id: str
    """Patient or case; the slide's own id where the list gives none."""
    label: str | None = None
    split: str | None = None
    """`train`, `val` or `test`."""
    mpp: float | None = None
    """µm per level-0 pixel, overrides the file's own."""
    annotation_path: Path | None = None
    fold: int | None = None
    """The fold in which the slide is tested, from 0 on."""
    further: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Cells of the list's further columns, which mean nothing here and are passed on."""


def list_slides(source: str | Path, recursive: bool = False) -> list[SlideEntry]:
    """Slides of a folder (by extension, sorted), a glob pattern, a CSV, or one slide file.

    Args:
        source: Folder, pattern (`**` descends), `.csv`, or slide.
        recursive: Look into the folders below a folder, too.

    Raises:
        UserError: nothing found, or a fault of the CSV (see `read_slide_list`).
    """
    path = Path(source)
    if path.suffix.lower() == ".csv":
        return read_slide_list(path)
    if path.is_dir():
        found = [file for file in (path.rglob("*") if recursive else path.iterdir()) if is_slide_file(file)]
    elif path.is_file():  # its name may hold brackets
        found = [path]
    else:
        found = [Path(name) for name in glob.glob(str(source), recursive=True) if Path(name).is_file()]
    if not found:
        hint = ": slides=FOLDER/**/*.svs looks deeper" if path.is_dir() and not recursive else ""
        raise UserError(f"no slides in {str(source)!r} (a folder, a pattern, a CSV or a slide file){hint}")
    return checked([SlideEntry(file.stem, file, file.stem) for file in sorted(found)], str(source))


def is_slide_file(path: Path) -> bool:
    """A visible file with a slide's extension."""
    return path.suffix.lower() in SLIDE_EXTENSIONS and not path.name.startswith(".") and path.is_file()


def read_slide_list(path: Path) -> list[SlideEntry]:
    """Read a CSV with a column `slide_path` (or TRIDENT's `wsi`) and any of the other `LIST_COLUMNS`.

    Relative paths count from the folder of the CSV. Further columns are passed on, so that a manifest is a slide list.

    Raises:
        UserError: no such file, no CSV, a missing slide or annotation, a repeated or unfit id, one slide under two ids
            in two parts, or a value out of range; with the row's line in the file.
    """
    table = read_table(path, (), LIST_COLUMNS)
    path_columns = [name for name in ("slide_path", "wsi") if name in table]
    if len(path_columns) != 1:
        raise UserError(f"{path}: a slide list needs one column `slide_path` (or `wsi`), it has {path_columns}")
    table = table.rename(columns={"wsi": "slide_path"})
    rows = zip(table.index, table.to_dict("records"), strict=True)
    return checked([entry_of(row, path.parent, f"{path}, line {line}") for line, row in rows], str(path))


def entry_of(row: dict[str, str], folder: Path, where: str) -> SlideEntry:
    """One row of a slide list; an empty cell is an absent value."""
    slide = existing_file(folder, row["slide_path"], f"{where}: slide")
    annotation = row.get("annotation_path")
    slide_id = row.get("slide_id") or slide.stem
    check_names(row | {"slide_id": slide_id}, where)
    return SlideEntry(
        slide_id=slide_id,
        path=slide,
        case_id=row.get("case_id") or slide_id,
        label=row.get("label") or None,
        split=split_of(row, where),
        mpp=mpp_of(row, where),
        annotation_path=existing_file(folder, annotation, f"{where}: annotation") if annotation else None,
        fold=fold_of(row, where),
        further=further_of(row, LIST_COLUMNS),
    )


def further_of(row: Mapping[str, str], known: Collection[str]) -> dict[str, str]:
    """The cells of a row that are not empty and whose columns mean nothing here."""
    return {name: cell for name, cell in row.items() if cell and name not in (*known, *RESULT_COLUMNS)}


def with_labels(entries: Sequence[SlideEntry], path: str | Path) -> list[SlideEntry]:
    """The slides with `label` (and `case_id`, `split`, `fold`, further columns where given) from a table of labels.

    Slides without a row keep what they have.

    Raises:
        UserError: as `read_labels`; no column `label`, or a value out of range.
    """
    by_id = {entry.slide_id: entry for entry in entries}
    table = read_labels(path, by_id, "slides")
    require_columns(table, ("label",), path)
    for line, row in zip(table.index, table.to_dict("records"), strict=True):
        where, entry = f"{path}, line {line}", by_id[row["slide_id"]]
        check_names(row, where)
        fold = fold_of(row, where)
        by_id[entry.slide_id] = replace(
            entry,
            label=row["label"] or None,
            case_id=row.get("case_id") or entry.case_id,
            split=split_of(row, where) or entry.split,
            fold=entry.fold if fold is None else fold,
            further={**entry.further, **further_of(row, ("slide_id", *LABEL_COLUMNS))},
        )
    return list(by_id.values())


def read_labels(path: str | Path, known: Collection[str], kind: str) -> pd.DataFrame:
    """A table of labels, as CLAM's, STAMP's and torchmil's: `slide_id` and any of `LABEL_COLUMNS`, as text.

    Ids may be file names, where `known` has them without the suffix of a slide or of a feature file: nothing else is
    cut off, for `P0.3` is not `P0`. Further columns are kept.

    Args:
        path: CSV; `slide_id` may have one of the names in `ALIASES`.
        known: ids of the slides that are there.
        kind: what they are, for the message on an unknown one: slides, feature files.

    Returns:
        The table by line in the file; its ids are known and unique.

    Raises:
        UserError: no such file, no CSV, no ids, an id that is not known, or one listed twice.
    """
    table = read_table(path, (), ("slide_id", *LABEL_COLUMNS))
    table = table.rename(columns={alias: name for alias, name in ALIASES.items() if name not in table})
    if "slide_id" not in table:
        raise UserError(f"{path}: column 'slide_id' (STAMP: 'FILENAME') is missing; it has {', '.join(table.columns)}")
    stems = table["slide_id"].map(without_suffix)
    table["slide_id"] = table["slide_id"].where(table["slide_id"].isin(known) | ~stems.isin(known), stems)
    for line, slide_id in table["slide_id"].items():
        if slide_id not in known:
            raise UserError(
                f"{path}, line {line}: slide {slide_id!r} is not among the {len(known)} {kind}; "
                f"{did_you_mean(slide_id, known)}"
            )
    for line in table.index[table["slide_id"].duplicated()]:
        raise UserError(f"{path}, line {line}: slide {table['slide_id'][line]!r} is listed twice")
    return table


def check_names(row: Mapping[str, str], where: str) -> None:
    """UserError, beginning with `where`, for an id, a case or a label that may not become a file name or a cell."""
    check_id(row["slide_id"], where)
    for name in ("case_id", "label"):
        check_cell(name, row.get(name, ""), where)


def without_suffix(name: str) -> str:
    """The name without the suffix of a slide or a feature file; other dots belong to an id, as in `P0.3`."""
    path = Path(name)
    return path.stem if path.suffix.lower() in (*SLIDE_EXTENSIONS, *FEATURE_EXTENSIONS) else name


def existing_file(folder: Path, name: str, what: str) -> Path:
    """A file named relative to a folder, or absolutely; UserError where it is absent."""
    path = folder / name
    if not name or not path.is_file():
        raise UserError(f"{what} {name!r} does not exist in {str(folder)!r}")
    return path


def split_of(row: dict[str, str], where: str) -> str | None:
    """The row's split, None where the cell is empty."""
    split = row.get("split") or None
    if split is not None and split not in SPLITS:
        raise UserError(f"{where}: split {split!r} is none of {', '.join(SPLITS)}")
    return split


def fold_of(row: dict[str, str], where: str) -> int | None:
    """The row's fold, None where the cell is empty."""
    text = row.get("fold")
    if text and not text.isdecimal():
        raise UserError(f"{where}: fold {text!r} is not a number 0, 1, 2, ...")
    return int(text) if text else None


def mpp_of(row: dict[str, str], where: str) -> float | None:
    """The row's resolution, None where the cell is empty."""
    text = row.get("mpp")
    if not text:
        return None
    try:
        mpp = float(text)
    except ValueError:
        mpp = 0.0
    if not 0 < mpp < float("inf"):
        raise UserError(f"{where}: mpp {text!r} is no positive number (µm per level-0 pixel)")
    return mpp


def checked(entries: list[SlideEntry], source: str) -> list[SlideEntry]:
    """The entries, if every id is unique and fit to name a file; one slide under two ids is a warning or refused."""
    first: dict[str, SlideEntry] = {}
    for entry in entries:
        check_id(entry.slide_id, source)
        if entry.slide_id in first:
            paths = f"{str(first[entry.slide_id].path)!r} and {str(entry.path)!r}"
            raise UserError(
                f"{source!r}: slide id {entry.slide_id!r} belongs to both {paths}: give a `slide_id` column"
            )
        first[entry.slide_id] = entry
    check_twins(list(first), [entry.path for entry in entries], [entry.split for entry in entries], source)
    return entries
