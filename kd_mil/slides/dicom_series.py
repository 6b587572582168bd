"""Slides as DICOM: a slide is a series, whose levels, label and overview are files beside each other.

Source: DICOM PS3.3, A.32.8 VL Whole Slide Microscopy Image IOD.
"""

import warnings
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_partial
from pydicom.tag import Tag

DICOM_SUFFIX = ".dcm"
WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
KEYWORDS = ("SOPClassUID", "ImageType", "SeriesInstanceUID", "ContainerIdentifier")
HEADER: list[Any] = [Tag(name) for name in (*KEYWORDS, "TotalPixelMatrixColumns", "TotalPixelMatrixRows")]
FUNCTIONAL_GROUPS = 0x52009229
"""Tag from which on a header describes frames one by one."""


class DicomFile(NamedTuple):
    """What the header of a file says."""

    path: Path
    is_slide: bool
    series: str
    container: str
    """Number of the glass slide, as on its label; empty where there is none."""
    rank: tuple[bool, int]
    """The largest of a series is its finest level."""


Folder = tuple[dict[str, DicomFile], dict[str, tuple[str, Path]]]
"""Headers by name of the file; id and finest file by series."""


def dicom_slides(files: Iterable[Path]) -> list[tuple[str, Path]]:
    """(id, file of the finest level) of every series that one of the files belongs to, in the order of the files.

    The id is the name of the folder where that holds a single series, else the container identifier (the number on the
    glass), else the UID of the series. Objects that are no slides, such as annotations, are left out with a warning;
    a file that cannot be read stands for itself.
    """
    found: dict[Path, tuple[str, Path]] = {}
    others: list[Path] = []
    for file in files:
        headers, slides = _look_into(file.parent, file.parent.stat().st_mtime_ns)
        header = headers.get(file.name)
        if header is None or not header.series:
            found[file] = (file.stem, file)
        elif not header.is_slide:
            others.append(file)
        else:
            slide_id, path = slides[header.series]
            found[path] = (slide_id, path)
    if others:
        warnings.warn(
            f"{len(others)} DICOM files left out, they are no slides but such as annotations: {str(others[0])!r}",
            stacklevel=2,
        )
    return list(found.values())


def is_dicom(path: Path) -> bool:
    """A visible file with DICOM's suffix."""
    return path.suffix.lower() == DICOM_SUFFIX and not path.name.startswith(".") and path.is_file()


def holds_dicom(folder: Path) -> bool:
    """Whether DICOM files lie directly in a folder."""
    return folder.is_dir() and any(is_dicom(path) for path in folder.iterdir())


@lru_cache(maxsize=64)
def _look_into(folder: Path, changed: int) -> Folder:
    """The headers of the DICOM files of a folder by name, and its slides (id, file) by series.

    Lists name the files of a folder one by one: they are read again only where `changed`, its time of change, is new.
    """
    headers = {path.name: _header(path) for path in sorted(folder.iterdir()) if is_dicom(path)}
    finest: dict[str, DicomFile] = {}
    for header in (one for one in headers.values() if one.is_slide and one.series):
        finest[header.series] = max(finest.get(header.series, header), header, key=lambda one: one.rank)
    glasses = Counter(one.container for one in finest.values())
    slides = {}
    for series, one in finest.items():
        if len(finest) == 1:
            slide_id = folder.resolve().name
        else:
            slide_id = one.container if one.container and glasses[one.container] == 1 else series
        slides[series] = (slide_id, one.path)
    return headers, slides


def _header(path: Path) -> DicomFile:
    """What a file says; without a series where it cannot be read."""
    try:
        with path.open("rb") as file:
            header: Any = read_partial(file, lambda tag, *_: tag >= FUNCTIONAL_GROUPS, specific_tags=HEADER)
        kind = [str(part) for part in header.get("ImageType", ())]
        size = int(header.get("TotalPixelMatrixColumns", 0)) * int(header.get("TotalPixelMatrixRows", 0))
        return DicomFile(
            path=path,
            is_slide=header.get("SOPClassUID", "") == WHOLE_SLIDE,
            series=str(header.get("SeriesInstanceUID", "")),
            container=str(header.get("ContainerIdentifier", "")).strip(),
            rank=("VOLUME" in kind, size),
        )
    except (InvalidDicomError, OSError, ValueError, TypeError, LookupError, AttributeError, NotImplementedError):
        return DicomFile(path, False, "", "", (False, 0))
