"""Named sets of slides: where their files lie, what their labels are, how they are split."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kd_mil.data.datamodules import Loading
from kd_mil.data.locations import find_root
from kd_mil.data.slides import SlidesData
from kd_mil.errors import UserError
from kd_mil.slides.slide_list import SlideEntry, list_slides
from kd_mil.slides.synthetic import SyntheticSettings, build_synthetic_slides

CAMELYON_SOURCE = (
    "CAMELYON16 (training/, testing/ of https://camelyon17.grand-challenge.org/Data, some 700 GB, archives unpacked)"
)
DUPLICATE = "test_049"
"""The organisers ask to leave it out: 129 test slides remain."""
PARTLY_ANNOTATED = "test_114"
"""Not all of its tumour is outlined, so its tiles are unknown."""
TCGA_SOURCE = "diagnostic slides of TCGA-LUAD and TCGA-LUSC (https://portal.gdc.cancer.gov, gdc-client)"
BARCODE = 12
"""Characters of a TCGA barcode that name the patient: TCGA-05-4244."""


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


class TcgaLung(SlidesData):
    """Lung cancer subtypes: adenocarcinoma against squamous cell carcinoma, several slides a patient.

    Slides lie in folders named after the class, at any depth (`LUAD/*/*.svs`), or are listed in a CSV. A patient is
    the first twelve characters of the barcode. Nothing is known of single tiles.

    Args:
        root: None = `tcga_lung` or `TCGA-lung` under `data_dir`.
        data_dir: folder of all data sets.
        loading: as in `SlidesData`.
        slides: CSV `slide_path,label` with labels LUAD and LUSC, instead of the folders.
        **settings: further arguments of `SlidesData`.
    """

    def __init__(
        self, root: str | None, data_dir: str, loading: Loading, slides: str | None = None, **settings: Any
    ) -> None:
        super().__init__(slides, loading, classes=("LUAD", "LUSC"), negatives_known=False, **settings)
        self.root, self.data_dir = root, data_dir

    def entries(self) -> list[SlideEntry]:
        if self.slides is not None:
            found = list_slides(self.slides)
        else:
            root = find_root(self.root, self.data_dir, ("tcga_lung", "TCGA-lung"), TCGA_SOURCE)
            found = [
                replace(entry, label=name)
                for name in ("LUAD", "LUSC")
                for entry in slides_in(root / name, recursive=True)
            ]
        return [replace(entry, case_id=patient_of(entry.slide_id)) for entry in found]


class SyntheticSlides(SlidesData):
    """Procedural H&E slides with exact truth, built at the first start; half of them hold tumour.

    Args:
        synthetic: number, size and resolution of the slides.
        loading: as in `SlidesData`.
        cache_dir: where the set is built, too.
        seed: of the slides, too.
        **slides: further arguments of `SlidesData`.
    """

    def __init__(
        self,
        synthetic: SyntheticSettings,
        loading: Loading,
        cache_dir: str = ".cache/kd_mil",
        seed: int = 0,
        **slides: Any,
    ) -> None:
        super().__init__(None, loading, classes=("negative", "positive"), cache_dir=cache_dir, seed=seed, **slides)
        self.synthetic = synthetic

    def entries(self) -> list[SlideEntry]:
        return list_slides(build_synthetic_slides(self.cache_dir, self.synthetic, self.seed))


def slides_in(folder: Path, recursive: bool = False) -> list[SlideEntry]:
    """Slides of a folder that must be there and not be empty.

    Raises:
        UserError: it is not, or it is.
    """
    if not folder.is_dir():
        raise UserError(f"{str(folder)!r} does not exist: the data set is incomplete, or data.root points elsewhere")
    return list_slides(folder, recursive)


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


def patient_of(slide_id: str) -> str:
    """Patient of a slide named by its TCGA barcode.

    Raises:
        UserError: the name is none.
    """
    if not slide_id.startswith("TCGA-") or len(slide_id) < BARCODE:
        raise UserError(f"slide {slide_id!r} is not named by a TCGA barcode (TCGA-05-4244-...): use data=slides")
    return slide_id[:BARCODE]
