"""Which files are slides: in a folder, by a pattern, or named one by one."""

import glob
from pathlib import Path

from kd_mil.core.errors import UserError
from kd_mil.slides.dicom_series import DICOM_SUFFIX, dicom_slides, holds_dicom, is_dicom

SLIDE_EXTENSIONS = (
    *(".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".svslide", ".bif", ".czi"),
    *(".png", ".jpg", ".jpeg", DICOM_SUFFIX),
)
"""Files taken from a folder; a pattern or a CSV may name any."""


def find_slides(source: str | Path, recursive: bool = False) -> list[tuple[str, Path]]:
    """(id, file) of the slides of a folder (by extension), of a glob pattern, or of one file, sorted by file.

    The id is the file's name without its last extension; that of DICOM see `dicom_slides`: a series is one slide, and
    a folder of `.dcm` files in a folder is taken as MIRAX's folders are.

    Raises:
        UserError: nothing found.
    """
    path = Path(source)
    if path.is_dir():
        inside = list(path.rglob("*") if recursive else path.iterdir())
        below = [] if recursive else [file for folder in inside if holds_dicom(folder) for file in folder.iterdir()]
        found = [*filter(is_slide_file, inside), *filter(is_dicom, below)]
    elif path.is_file():  # its name may hold brackets
        found = [path]
    else:
        found = [Path(name) for name in glob.glob(str(source), recursive=True) if Path(name).is_file()]
    slides = [(file.stem, file) for file in found if not is_dicom(file)]
    slides += dicom_slides(sorted(file for file in found if is_dicom(file)))
    if not slides:
        hint = ": slides=FOLDER/**/*.svs looks deeper" if path.is_dir() and not recursive else ""
        raise UserError(f"no slides in {str(source)!r} (a folder, a pattern, a CSV or a slide file){hint}")
    return sorted(slides, key=lambda slide: slide[1])


def is_slide_file(path: Path) -> bool:
    """A visible file with a slide's extension."""
    return path.suffix.lower() in SLIDE_EXTENSIONS and not path.name.startswith(".") and path.is_file()


def is_slide(path: Path) -> bool:
    """Whether a list may name this: a file that is there, or a folder of DICOM files."""
    return path.is_file() or holds_dicom(path)


def named_slide(path: Path, where: str) -> tuple[str, Path]:
    """(id, file) of the slide that a list names; of DICOM by its folder or by any file of the series.

    Raises:
        UserError: beginning with `where`: a folder of several series.
    """
    if holds_dicom(path):
        slides = dicom_slides(sorted(file for file in path.iterdir() if is_dicom(file)))
        if len(slides) != 1:
            raise UserError(f"{where}: folder {str(path)!r} holds {len(slides)} DICOM series: name a file of one")
        return slides[0]
    found = dicom_slides([path]) if is_dicom(path) else []
    return found[0] if found else (path.stem, path)
