"""Feature files to predict or to check: those of a folder, of a list, or one."""

from pathlib import Path
from typing import Any, NamedTuple

from kd_mil.core.checks import check_id
from kd_mil.core.errors import UserError
from kd_mil.core.object_stores import is_remote, joined
from kd_mil.data.features.files.layouts import existing_features, feature_files, listed_table
from kd_mil.data.features.remote import RemoteFiles
from kd_mil.slides.slide_list import SlideEntry, mpp_of


class FeatureEntry(NamedTuple):
    """One feature file of a list."""

    slide_id: str
    path: Path
    slide: SlideEntry | None = None
    """The slide it came from, where the list names one that is there."""
    mpp: float | None = None
    """µm per level-0 pixel of that slide, wherever it is, as the list says it."""
    fault: str = ""
    """Why the file cannot be taken, where it cannot: it is not there, or its path leaves the list's folder."""
    label: str | None = None
    """What the list says the slide is, where it does."""
    case: str | None = None
    """Whose it is, where the list says so."""


class FeatureListing(NamedTuple):
    """Feature files that belong together."""

    entries: list[FeatureEntry]
    folder: Path
    """Where they, or their list, lie on this machine."""


def list_features(source: str | Path, remote: RemoteFiles) -> FeatureListing:
    """The feature files of a folder (as `feature_files`), of a CSV (as `feature_table` reads it), or one file.

    A CSV may have `slide_path`, for pictures, and `mpp`, by which positions in micrometres are scaled. Relative paths
    count from its folder. A file that cannot be taken is a `fault` of its entry while others can.

    Args:
        source: what is named, also by a URL.
        remote: copies what lies in an object store.

    Raises:
        UserError: nothing found, a fault of the CSV, an id that is repeated or cannot name a file, or what an object
            store does not give.
    """
    path = Path(str(remote.here(source)))
    if path.suffix.lower() == ".csv":
        entries = _listed(path, str(source).rpartition("/")[0] if is_remote(source) else str(path.parent), remote)
    elif path.is_dir():
        entries = [FeatureEntry(slide_id, file) for slide_id, file in feature_files(path).items()]
    elif path.is_file():
        entries = [FeatureEntry(path.stem, path)]
    else:
        raise UserError(f"no feature files in {str(source)!r}: give a folder, a CSV slide_id,feature_path or a file")
    for entry in entries:
        check_id(entry.slide_id, str(source))
    return FeatureListing(entries, path if path.is_dir() else path.parent)


def _listed(path: Path, start: str, remote: RemoteFiles) -> list[FeatureEntry]:
    table, folder = listed_table(path)
    rows = list(zip(table.index, table.to_dict("records"), strict=True))
    urls = [joined(start, row["feature_path"]) for _, row in rows]
    copies = dict(zip(found := [url for url in urls if is_remote(url)], remote.files(found), strict=True))
    entries = [
        _entry(row, f"{path}, line {line}", folder, copies.get(url))
        for (line, row), url in zip(rows, urls, strict=True)
    ]
    if all(entry.fault for entry in entries):
        raise UserError(entries[0].fault)
    return entries


def _entry(row: dict[str, Any], where: str, folder: Path, copy: Path | None) -> FeatureEntry:
    """One row; `copy` is its feature file where that lies in an object store."""
    slide_id, slide = row["slide_id"], folder / row.get("slide_path", "")
    mpp, label, case = mpp_of(row, where), row.get("label") or None, row.get("case_id") or None
    entry = SlideEntry(slide_id, slide, slide_id, mpp=mpp) if slide.is_file() else None
    if copy is not None:
        return FeatureEntry(slide_id, copy, entry, mpp=mpp, label=label, case=case)
    fault = ""
    try:
        existing_features(folder, row["feature_path"], where)
    except UserError as error:
        fault = str(error)
    return FeatureEntry(slide_id, folder / row["feature_path"], entry, mpp=mpp, fault=fault, label=label, case=case)
