"""Camelyon16: the one reader of its folders, and its slides as bags of tiles.

Source: B. Ehteshami Bejnordi et al., Diagnostic Assessment of Deep Learning Algorithms for Detection of Lymph Node
Metastases in Women With Breast Cancer, JAMA 2017, doi:10.1001/jama.2017.14585.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kd_mil.core.errors import UserError
from kd_mil.core.readable import readable
from kd_mil.data.datamodules import Loading
from kd_mil.data.locations import find_root
from kd_mil.data.tiles.listing import slides_in
from kd_mil.data.tiles.slides import SlideBags
from kd_mil.slides.slide_list import SlideEntry

FOLDERS = ("camelyon16", "CAMELYON16", "Camelyon16")
SOURCE = (
    "CAMELYON16 (training/, testing/ of https://camelyon17.grand-challenge.org/Data, some 700 GB, archives unpacked)"
)
CLASSES = ("normal", "tumor")
DUPLICATE = "test_049"
"""The organisers ask to leave it out: 129 test slides remain."""
PARTLY_ANNOTATED = "test_114"
"""Not all of its tumour is outlined, so nothing is known of its tiles."""


class Camelyon16(SlideBags):
    """Lymph node slides with and without breast cancer metastases, in the folders in which they are published.

    Test slides are the official ones; validation slides are held out from training. `camelyon16_slides` says which
    folders and files are read.

    Args:
        root: None = `camelyon16`, `CAMELYON16` or `Camelyon16` under `data_dir`.
        data_dir: folder of all data sets.
        loading: as in `SlideBags`.
        **slides: further arguments of `SlideBags`.
    """

    def __init__(self, root: str | None, data_dir: str, loading: Loading, **slides: Any) -> None:
        super().__init__(None, loading, classes=CLASSES, **slides)
        self.root, self.data_dir = root, data_dir

    def entries(self) -> list[SlideEntry]:
        return camelyon16_slides(find_root(self.root, self.data_dir, FOLDERS, SOURCE))


def camelyon16_slides(root: Path) -> list[SlideEntry]:
    """The slides with label (`normal` or `tumor`), split (`train` or `test`) and, of tumour slides, their outlines.

    Read are `training/{normal,tumor}/*.tif`, `testing/images/*.tif` with the labels of `testing/reference.csv`, and the
    outlines `*.xml` in any folder below the same part. `test_049` is left out. `test_114` comes without its outlines,
    as they are incomplete: a tumour slide without outlines is one whose tiles are unknown.

    Raises:
        UserError: a missing folder, a test slide that `reference.csv` does not know, a tumour slide without outlines or
            a normal one with them.
    """
    training, testing = root / "training", root / "testing"
    labelled = {name: scans_in(training / name) for name in CLASSES}
    train = [replace(entry, label=name, split="train") for name, entries in labelled.items() for entry in entries]
    test = [entry for entry in scans_in(testing / "images") if entry.slide_id.lower() != DUPLICATE]
    labels = reference_labels(testing / "reference.csv", [entry.slide_id for entry in test])
    test = [replace(entry, label=labels[entry.slide_id], split="test") for entry in test]
    return with_outlines(train, training) + with_outlines(test, testing)


def scans_in(folder: Path) -> list[SlideEntry]:
    """Slides of a folder without the masks (`tumor_001_mask.tif`) that may lie beside them."""
    return [entry for entry in slides_in(folder) if not entry.slide_id.lower().endswith("_mask")]


def with_outlines(entries: Sequence[SlideEntry], part: Path) -> list[SlideEntry]:
    """The slides of a part of the set, those with tumour with their outlines from below its folder."""
    outlines = {path.stem.lower(): path for path in sorted(part.rglob("*.xml"))}
    return [outlined(entry, outlines.get(entry.slide_id.lower()), part) for entry in entries]


def outlined(entry: SlideEntry, path: Path | None, part: Path) -> SlideEntry:
    """A slide with its outlines, if it has tumour and is not `PARTLY_ANNOTATED`.

    Raises:
        UserError: a tumour slide without outlines, or a normal one with them.
    """
    if entry.label == "normal":
        if path is not None:
            raise UserError(f"slide {entry.slide_id!r} is normal, but {str(path)!r} outlines tumour: fix either")
        return entry
    if entry.slide_id.lower() == PARTLY_ANNOTATED:
        return entry
    if path is None:
        raise UserError(
            f"tumour slide {str(entry.path)!r} has no outlines {entry.slide_id}.xml below {str(part)!r}: "
            "unpack lesion_annotations.zip of CAMELYON16 there"
        )
    return replace(entry, annotation_path=path)


def reference_labels(path: Path, slide_ids: Sequence[str]) -> dict[str, str]:
    """`normal` or `tumor` for each test slide, from a file of lines `test_001,Tumor,IDC,Macro` without header.

    Raises:
        UserError: the file is missing, or does not say what a slide is.
    """
    with readable(path, "download it again"):
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    cells = [[cell.strip() for cell in line.split(",")] for line in lines]
    labels = {Path(row[0]).stem.lower(): row[1].lower() for row in cells if len(row) > 1}
    for slide_id in slide_ids:
        if labels.get(slide_id.lower()) not in CLASSES:
            raise UserError(f"{str(path)!r} does not say whether {slide_id!r} is Normal or Tumor: download it again")
    return {slide_id: labels[slide_id.lower()] for slide_id in slide_ids}
