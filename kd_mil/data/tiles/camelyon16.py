"""Named sets of slides: where their files lie, what their labels are, how they are split."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kd_mil.core.errors import UserError
from kd_mil.data.datamodules import Loading
from kd_mil.data.locations import find_root
from kd_mil.data.tiles.slides import SlidesData, slides_in
from kd_mil.slides.slide_list import SlideEntry

CAMELYON_SOURCE = (
    "CAMELYON16 (training/, testing/ of https://camelyon17.grand-challenge.org/Data, some 700 GB, archives unpacked)"
)
DUPLICATE = "test_049"
"""The organisers ask to leave it out: 129 test slides remain."""
PARTLY_ANNOTATED = "test_114"
"""Not all of its tumour is outlined, so its tiles are unknown."""


class Camelyon16(SlidesData):
    """Lymph node slides with and without breast cancer metastases, in the folders in which they are published.

    `training/{normal,tumor}/*.tif`, `testing/images/*.tif`, `testing/reference.csv`, and outlines in
    `{training,testing}/lesion_annotations/*.xml`. Test slides are the official ones; validation slides are held out
    from training. Source: Ehteshami Bejnordi et al., JAMA 2017.

    Args:
        root: None = `camelyon16` or `CAMELYON16` under `data_dir`.
        data_dir: folder of all data sets.
        loading: as in `SlidesData`.
        **slides: further arguments of `SlidesData`.
    """

    def __init__(self, root: str | None, data_dir: str, loading: Loading, **slides: Any) -> None:
        super().__init__(None, loading, classes=("normal", "tumor"), **slides)
        self.root, self.data_dir = root, data_dir

    def entries(self) -> list[SlideEntry]:
        root = find_root(self.root, self.data_dir, ("camelyon16", "CAMELYON16"), CAMELYON_SOURCE)
        training, testing = root / "training", root / "testing"
        normal = [replace(entry, label="normal", split="train") for entry in slides_in(training / "normal")]
        tumor = [replace(entry, label="tumor", split="train") for entry in slides_in(training / "tumor")]
        test = [entry for entry in slides_in(testing / "images") if entry.slide_id != DUPLICATE]
        labels = reference_labels(testing / "reference.csv", [entry.slide_id for entry in test])
        test = [replace(entry, label=labels[entry.slide_id], split="test") for entry in test]
        return [
            *normal,
            *(outlined(entry, training) for entry in tumor),
            *(outlined(entry, testing) if entry.label == "tumor" else entry for entry in test),
        ]


def outlined(entry: SlideEntry, part: Path) -> SlideEntry:
    """A tumour slide with its outlines in `lesion_annotations` of its part of the data set.

    Raises:
        UserError: they are missing.
    """
    if entry.slide_id == PARTLY_ANNOTATED:
        return entry
    path = part / "lesion_annotations" / f"{entry.slide_id}.xml"
    if not path.is_file():
        raise UserError(f"{str(path)!r} does not exist: unpack lesion_annotations.zip of CAMELYON16 into {str(part)!r}")
    return replace(entry, annotation_path=path)


def reference_labels(path: Path, slide_ids: Sequence[str]) -> dict[str, str]:
    """`normal` or `tumor` for each test slide, from a file of lines `test_001,Tumor,IDC,Macro` without header.

    Raises:
        UserError: the file is missing, or does not say what a slide is.
    """
    lines = path.read_text().splitlines() if path.is_file() else []
    cells = [[cell.strip() for cell in line.split(",")] for line in lines]
    labels = {Path(row[0]).stem.lower(): row[1].lower() for row in cells if len(row) > 1}
    for slide_id in slide_ids:
        if labels.get(slide_id.lower()) not in ("normal", "tumor"):
            raise UserError(f"{str(path)!r} does not say whether {slide_id!r} is Normal or Tumor: download it again")
    return {slide_id: labels[slide_id.lower()] for slide_id in slide_ids}


SOURCE = "Camelyon16 (B. Ehteshami Bejnordi et al., JAMA 2017) with training/, testing/ and their lesion annotations"
SLIDE_SUFFIXES = (".tif", ".tiff")


@dataclass(frozen=True)
class CamelyonSlide:
    """A slide of the set."""

    path: Path
    annotation: Path | None
    """ASAP outlines of its tumour; None = a slide without tumour."""
    part: str
    """`training` or `testing`."""


def find_slides(root: Path) -> list[CamelyonSlide]:
    """Slides of both parts with their outlines, sorted.

    Raises:
        UserError: a part without slides or without outlines, or a tumour slide without its own.
    """
    slides = []
    for part in ("training", "testing"):
        files = sorted(path for path in (root / part).rglob("*") if path.suffix.lower() in SLIDE_SUFFIXES)
        files = [path for path in files if "mask" not in path.stem.lower()]
        outlines = {path.stem: path for path in (root / part).rglob("*.xml")}
        if not files:
            raise UserError(f"no slides below {root / part}: data.root must hold {SOURCE}")
        if not outlines:
            raise UserError(f"no outlines (.xml) below {root / part}: every slide there would count as normal")
        for path in files:
            if path.stem.startswith("tumor") and path.stem not in outlines:
                raise UserError(f"{path} has no outlines {path.stem}.xml below {root / part}")
            slides.append(CamelyonSlide(path, outlines.get(path.stem), part))
    return slides
