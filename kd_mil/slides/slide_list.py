"""Which slides to work on: a folder, a pattern, or a CSV."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from kd_mil.core.checks import check_cell, check_id
from kd_mil.core.errors import UserError
from kd_mil.core.object_stores import RemoteFile, is_remote, joined
from kd_mil.core.tables import read_table, undotted
from kd_mil.slides.slide_content import check_twins
from kd_mil.slides.slide_files import find_slides, is_slide, named_slide

LIST_COLUMNS = ("slide_path", "wsi", "slide_id", "case_id", "label", "split", "fold", "mpp", "annotation_path")
RESULT_COLUMNS = ("feature_path", "coords_path")
"""Of a manifest of `kd_mil.extract`, which may be a slide list."""
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
    remote: RemoteFile | None = None
    """Where it lies in an object store; `path` then serves for its name alone."""

    @property
    def place(self) -> str:
        """Where it is: its URL, or its absolute path."""
        return str(self.path.absolute()) if self.remote is None else self.remote.url


def list_slides(source: str | Path, recursive: bool = False) -> list[SlideEntry]:
    """Slides of a folder (by extension, sorted), a glob pattern, a CSV, or one slide file; DICOM by its series.

    Args:
        source: Folder, pattern (`**` descends), `.csv`, or slide.
        recursive: Look into the folders below a folder, too.

    Raises:
        UserError: nothing found, a fault of the CSV (see `read_slide_list`), or slides in object stores, which
            `remote_slides.list_all_slides` takes.
    """
    path = Path(source)
    if path.suffix.lower() == ".csv" and not is_remote(source):
        entries = read_slide_list(path)
        source = next((entry.place for entry in entries if entry.remote is not None), source)
        if not is_remote(source):
            return entries
    if is_remote(source):
        raise UserError(f"{source}: slides in object stores are read by kd_mil.extract, with cache=FOLDER")
    found = find_slides(path, recursive)
    return checked([SlideEntry(slide_id, file, slide_id) for slide_id, file in found], str(source))


def read_slide_list(path: Path, start: str | None = None) -> list[SlideEntry]:
    """Read a CSV with a column `slide_path` (or TRIDENT's `wsi`) and any of the other `LIST_COLUMNS`.

    Relative paths count from the folder of the CSV. Further columns are passed on, so that a manifest is a slide list.
    Files that are missing while others are there are left to whoever opens them (`require_files`). Slides may be URLs;
    nothing is asked of their stores here.

    Args:
        path: the file.
        start: URL of the folder of which it is a copy.

    Raises:
        UserError: no such file, no CSV, not one of the slides or annotations is there, a repeated or unfit id, one
            slide under two ids in two parts, or a value out of range; with the row's line in the file.
    """
    table = read_table(path, (), LIST_COLUMNS)
    path_columns = [name for name in ("slide_path", "wsi") if name in table]
    if len(path_columns) != 1:
        raise UserError(f"{path}: a slide list needs one column `slide_path` (or `wsi`), it has {path_columns}")
    table = table.rename(columns={"wsi": "slide_path"})
    rows = list(zip(table.index, table.to_dict("records"), strict=True))
    start = start or str(path.parent)
    for column, what in (("slide_path", "slide"), ("annotation_path", "annotation")):
        named = [(line, row[column]) for line, row in rows if row.get(column)]
        _require_any([one for one in named if not is_remote(joined(start, one[1]))], what, path)
    return checked([entry_of(row, path.parent, f"{path}, line {line}", start) for line, row in rows], str(path))


def entry_of(row: dict[str, str], folder: Path, where: str, start: str) -> SlideEntry:
    """One row of a slide list; an empty cell is an absent value."""
    if not row["slide_path"]:
        raise UserError(f"{where}: slide_path is empty")
    url = joined(start, row["slide_path"])
    if is_remote(url):
        name, slide = PurePosixPath(url).stem, Path(url)
    else:
        name, slide = named_slide(folder / row["slide_path"], where)
    annotation = row.get("annotation_path")
    slide_id = row.get("slide_id") or name
    check_names(row | {"slide_id": slide_id}, where)
    return SlideEntry(
        slide_id=slide_id,
        path=slide,
        case_id=row.get("case_id") or slide_id,
        label=row.get("label") or None,
        split=split_of(row, where),
        mpp=mpp_of(row, where),
        annotation_path=folder / annotation if annotation else None,
        fold=fold_of(row, where),
        further=further_of(row, LIST_COLUMNS),
        remote=RemoteFile(url, 0, "", None) if is_remote(url) else None,
    )


def further_of(row: Mapping[str, str], known: Collection[str]) -> dict[str, str]:
    """The cells of a row that are not empty and whose columns mean nothing here."""
    return {name: cell for name, cell in row.items() if cell and name not in (*known, *RESULT_COLUMNS)}


def check_names(row: Mapping[str, str], where: str) -> None:
    """UserError, beginning with `where`, for an id, a case or a label that may not become a file name or a cell."""
    check_id(row["slide_id"], where)
    for name in ("case_id", "label"):
        check_cell(name, row.get(name, ""), where)


def require_files(entry: SlideEntry) -> None:
    """UserError where the slide or its annotation is not there."""
    if entry.remote is not None and not entry.remote.version:
        raise UserError(f"slide {entry.place!r} does not exist")
    slide = None if entry.remote is not None else entry.path
    files = (("slide", slide), (f"slide {entry.slide_id!r}: annotation", entry.annotation_path))
    for what, path in files:
        if path is not None and not path.is_file():
            raise UserError(f"{what} {str(path)!r} {'is a folder' if path.is_dir() else 'does not exist'}")


def _require_any(named: Sequence[tuple[int, str]], what: str, path: Path) -> None:
    """UserError where no file that a column names is there: the paths are wrong, not a file."""
    if named and not any(is_slide(path.parent / name) for _, name in named):
        line, name = named[0]
        raise UserError(f"{path}, line {line}: {what} {name!r} does not exist in {str(path.parent)!r}")


def split_of(row: dict[str, str], where: str) -> str | None:
    """The row's split, None where the cell is empty."""
    split = row.get("split") or None
    if split is not None and split not in SPLITS:
        raise UserError(f"{where}: split {split!r} is none of {', '.join(SPLITS)}")
    return split


def fold_of(row: dict[str, str], where: str) -> int | None:
    """The row's fold, None where the cell is empty."""
    text = undotted(row.get("fold") or "")
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
            paths = " and ".join(
                repr(one.place if one.remote else str(one.path)) for one in (first[entry.slide_id], entry)
            )
            raise UserError(
                f"{source!r}: slide id {entry.slide_id!r} belongs to both {paths}: give a `slide_id` column"
            )
        first[entry.slide_id] = entry
    check_twins(list(first), [entry.path for entry in entries], [entry.split for entry in entries], source)
    return entries
