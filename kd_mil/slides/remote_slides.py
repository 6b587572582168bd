"""Slides in object stores: which there are, and what stands for their content. They are copied to be read."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from kd_mil.core.errors import UserError
from kd_mil.core.hashing import sample_of
from kd_mil.core.object_stores import (
    RemoteFile,
    described,
    fetched,
    file_system,
    is_remote,
    looked_at_anew,
    one_line_each,
    remote_file,
)
from kd_mil.core.tables import read_table
from kd_mil.slides.slide_files import SLIDE_EXTENSIONS
from kd_mil.slides.slide_list import SlideEntry, checked, list_slides, read_slide_list

OF_SEVERAL_FILES = (".mrxs", ".dcm", ".vms", ".vmu")
"""Suffixes of slides that are more than one file: they are not read from object stores."""


def list_all_slides(source: str | Path, tables: Path | None) -> list[SlideEntry]:
    """As `list_slides`; the source, or what a CSV names, may also be a URL, with patterns as local ones.

    Each folder of a store is listed once. Slides that are not there are left to whoever opens them.

    Args:
        source: folder, pattern, CSV or slide.
        tables: folder for copies of tables and annotations in object stores; None = URLs are refused.

    Raises:
        UserError: as of `list_slides`; a store that cannot be asked, or nothing there.
    """
    is_list = PurePosixPath(str(source)).suffix.lower() == ".csv"
    if is_remote(source) and tables is None:
        raise UserError(f"slides={source}: give cache=FOLDER, a disk to which they are copied one after the other")
    if is_remote(source) and not is_list:
        return checked(_found(str(source)), str(source))
    if not is_list:
        return list_slides(source)
    if not is_remote(source):
        return _with_facts(read_slide_list(Path(source)), tables)
    assert tables is not None
    table = fetched_table(str(source), tables)
    start = str(source).rpartition("/")[0]
    _fetch_annotations(table, start, tables)
    return _with_facts(read_slide_list(table, start), tables)


def fetched_table(name: str, tables: Path) -> Path:
    """A local table as it is, or the copy of one in an object store; UserError where it is not there."""
    if not is_remote(name):
        return Path(name)
    return fetched(described([name])[name], tables)


def _fetch_annotations(table: Path, start: str, tables: Path) -> None:
    """Copy the annotations that a copied list names by relative paths: they stand beside it, as in the store."""
    cells = [cell for cell in read_table(table, ()).get("annotation_path", []) if cell and not is_remote(cell)]
    for file in described([f"{start}/{cell}" for cell in dict.fromkeys(cells)]).values():
        if file.version:
            fetched(file, tables)


def _with_facts(entries: Sequence[SlideEntry], tables: Path | None) -> list[SlideEntry]:
    urls = [entry.remote.url for entry in entries if entry.remote is not None]
    if urls and tables is None:
        raise UserError(f"{urls[0]}: give cache=FOLDER, a disk to which slides are copied one after the other")
    found = described(urls)
    return [entry if entry.remote is None else replace(entry, remote=found[entry.remote.url]) for entry in entries]


def _found(source: str) -> list[SlideEntry]:
    """The slides of a folder, by a pattern, or one."""
    with one_line_each(source):
        system = looked_at_anew(source)
        if any(sign in source for sign in "*?["):
            listed = [facts for facts in system.glob(source, detail=True).values() if facts["type"] == "file"]
        elif system.isfile(source):
            listed = [system.info(source)]
        else:
            listed = [facts for facts in system.ls(source, detail=True) if facts["type"] == "file"]
        files = [remote_file(system.unstrip_protocol(facts["name"]), facts) for facts in listed]
    slides = [file for file in files if PurePosixPath(file.url).suffix.lower() in SLIDE_EXTENSIONS]
    several = [file for file in slides if PurePosixPath(file.url).suffix.lower() in OF_SEVERAL_FILES]
    if several:
        warnings.warn(
            f"{source}: {len(several)} files of MIRAX, DICOM or VMS slides are left out: copy these", stacklevel=3
        )
    entries = [_entry(file) for file in slides if file not in several]
    if not entries:
        raise UserError(f"no slides in {source!r} (a folder, a pattern, a CSV or a slide file)")
    return sorted(entries, key=lambda entry: entry.place)


def _entry(file: RemoteFile) -> SlideEntry:
    name = PurePosixPath(file.url).stem
    return SlideEntry(name, Path(file.url), name, remote=file)


def refuse_several_files(file: RemoteFile) -> None:
    """UserError for a slide that is more than one file."""
    if PurePosixPath(file.url).suffix.lower() in OF_SEVERAL_FILES:
        raise UserError(f"{file.url}: slides of several files are not read from object stores: copy them to a disk")


def remote_identity(file: RemoteFile) -> dict[str, Any]:
    """As `slide_content.slide_identity`, by some requests for parts of the file.

    Raises:
        UserError: it cannot be read.
    """
    with one_line_each(file.url), file_system(file.url).open(file.url, "rb", cache_type="none") as there:
        content = sample_of(there, file.size)
    modified = None if file.modified is None else round(file.modified * 1e9)
    return {"size": file.size, "modified": modified, "content": content}
