"""Procedural slides laid out as Camelyon16 is published."""

import csv
import shutil
from pathlib import Path

from kd_mil.slides.synthetic.build import SyntheticSettings, build_synthetic_slides

REFERENCE = (
    "test_001,Tumor,IDC,Macro",
    "test_003,Normal,None,None",
    "test_049,Tumor,IDC,Macro",
    "test_114,Tumor,IDC,Macro",
)


def drawn_slides(folder: Path) -> Path:
    """A list of ten small slides, half of them with tumour."""
    return build_synthetic_slides(folder, SyntheticSettings(slides=10, size=768, mpp=1.0, slides_per_case=1), seed=0)


def slides_with_label(slide_list: Path, label: str) -> list[Path]:
    """The slide files of a list that have a label."""
    rows = [row for row in csv.DictReader(slide_list.open()) if row["label"] == label]
    return [slide_list.parent / row["slide_path"] for row in rows]


def lay_out_camelyon16(root: Path, slide_list: Path) -> Path:
    """Three training slides of each class, and the test slides of `REFERENCE`; outlines of all tumour slides."""
    normal, tumour = (slides_with_label(slide_list, label) for label in ("negative", "positive"))
    for number in range(3):
        put(root / "training" / "normal" / f"normal_{number + 1:03d}.tif", normal[number])
        put(root / "training" / "tumor" / f"tumor_{number + 1:03d}.tif", tumour[number], root / "training")
    put(root / "testing" / "images" / "test_003.tif", normal[3])
    for name, source in (("test_001", tumour[3]), ("test_114", tumour[4]), ("test_049", tumour[0])):
        put(root / "testing" / "images" / f"{name}.tif", source, root / "testing")
    (root / "testing" / "reference.csv").write_text("\n".join(REFERENCE) + "\n")
    return root


def put(path: Path, source: Path, outlined_in: Path | None = None) -> None:
    """Copy a drawn slide, and its outlines into a part of the set."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, path)
    if outlined_in is not None:
        outlines = outlined_in / "lesion_annotations" / f"{path.stem}.xml"
        outlines.parent.mkdir(exist_ok=True)
        shutil.copyfile(source.parent.parent / "annotations" / f"{source.stem}.xml", outlines)
