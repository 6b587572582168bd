"""Which slides to work on: a folder, a pattern, or a CSV; and their labels."""

import glob
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kd_mil.core.errors import UserError
from kd_mil.core.suggestions import suggestion
from kd_mil.core.tables import read_table

SLIDE_EXTENSIONS = (
    *(".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".svslide", ".bif", ".czi"),
    *(".png", ".jpg", ".jpeg"),
)
"""Files taken from a folder; a pattern or a CSV may name any."""
LIST_COLUMNS = (
    *("slide_path", "wsi", "slide_id", "case_id", "label", "split", "mpp", "annotation_path"),
    *("feature_path", "coords_path", "fold"),
)
"""The last three are the manifest's and mean nothing here: one table serves slides and features."""
LABEL_COLUMNS = ("slide_id", "label", "case_id", "split")
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
    """um per level-0 pixel, overrides the file's own."""
    annotation_path: Path | None = None


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

    Relative paths count from the folder of the CSV.

    Raises:
        UserError: no such file, no CSV, an unknown column, a missing slide or annotation, a repeated or unfit id, or a
            value out of range; with the row's line in the file.
    """
    table = read_table(path, LIST_COLUMNS)
    path_columns = [name for name in ("slide_path", "wsi") if name in table]
    if len(path_columns) != 1:
        raise UserError(f"slide list {str(path)!r} needs one column `slide_path` (or `wsi`), it has {path_columns}")
    table = table.rename(columns={"wsi": "slide_path"})
    entries = [entry_of(row, path, line) for line, row in enumerate(table.to_dict("records"), start=2)]
    return checked(entries, str(path))


def entry_of(row: dict[str, str], path: Path, line: int) -> SlideEntry:
    """One row of a slide list; an empty cell is an absent value."""
    where = f"{str(path)!r}, line {line}"
    slide = existing_file(path.parent, row["slide_path"], f"{where}: slide")
    annotation = row.get("annotation_path")
    slide_id = row.get("slide_id") or slide.stem
    return SlideEntry(
        slide_id=slide_id,
        path=slide,
        case_id=row.get("case_id") or slide_id,
        label=row.get("label") or None,
        split=split_of(row, where),
        mpp=mpp_of(row, where),
        annotation_path=existing_file(path.parent, annotation, f"{where}: annotation") if annotation else None,
    )


def with_labels(entries: Sequence[SlideEntry], path: str | Path) -> list[SlideEntry]:
    """The slides with `label` (and `case_id`, `split` where given) from a CSV with a column `slide_id`, as CLAM's.

    Slides without a row keep what they have.

    Raises:
        UserError: no such file, no CSV, an unknown column, a repeated id, or a row for a slide that is not listed.
    """
    path = Path(path)
    table = read_table(path, LABEL_COLUMNS)
    for name in ("slide_id", "label"):
        if name not in table:
            raise UserError(f"labels {str(path)!r} have no column {name!r}")
    by_id = {entry.slide_id: entry for entry in entries}
    seen: set[str] = set()
    for line, row in enumerate(table.to_dict("records"), start=2):
        where, slide_id = f"{str(path)!r}, line {line}", row["slide_id"]
        if slide_id not in by_id:
            raise UserError(
                f"{where}: slide {slide_id!r} is not among the {len(by_id)} slides{suggestion(slide_id, by_id)}"
            )
        if slide_id in seen:
            raise UserError(f"{where}: slide {slide_id!r} is labelled twice")
        seen.add(slide_id)
        entry = by_id[slide_id]
        by_id[slide_id] = replace(
            entry,
            label=row["label"] or None,
            case_id=row.get("case_id") or entry.case_id,
            split=split_of(row, where) or entry.split,
        )
    return list(by_id.values())


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
        raise UserError(f"{where}: mpp {text!r} is no positive number (um per level-0 pixel)")
    return mpp


def checked(entries: list[SlideEntry], source: str) -> list[SlideEntry]:
    """The entries, if every id is unique and fit to name a file."""
    first: dict[str, SlideEntry] = {}
    for entry in entries:
        if Path(entry.slide_id).name != entry.slide_id or entry.slide_id in (".", ".."):
            raise UserError(f"{source!r}: slide id {entry.slide_id!r} cannot name a file: leave out slashes")
        if entry.slide_id in first:
            paths = f"{str(first[entry.slide_id].path)!r} and {str(entry.path)!r}"
            raise UserError(
                f"{source!r}: slide id {entry.slide_id!r} belongs to both {paths}: give a `slide_id` column"
            )
        first[entry.slide_id] = entry
    return entries
