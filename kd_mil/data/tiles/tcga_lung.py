"""TcgaLung: lung adenocarcinoma against squamous cell carcinoma."""

from dataclasses import replace
from typing import Any

from kd_mil.core.errors import UserError
from kd_mil.data.datamodules import Loading
from kd_mil.data.locations import find_root
from kd_mil.data.tiles.listing import slides_in
from kd_mil.data.tiles.slides import SlideBags
from kd_mil.slides.slide_list import SlideEntry, list_slides

TCGA_SOURCE = "diagnostic slides of TCGA-LUAD and TCGA-LUSC (https://portal.gdc.cancer.gov, gdc-client)"


BARCODE = 12
"""Characters of a TCGA barcode that name the patient: TCGA-05-4244."""


class TcgaLung(SlideBags):
    """Lung cancer subtypes: adenocarcinoma against squamous cell carcinoma, several slides a patient.

    Slides lie in folders named after the class, at any depth (`LUAD/*/*.svs`), or are listed in a CSV. A patient is
    the first twelve characters of the barcode. Nothing is known of single tiles.

    Args:
        root: None = `tcga_lung` or `TCGA-lung` under `data_dir`.
        data_dir: folder of all data sets.
        loading: as in `SlideBags`.
        slides: CSV `slide_path,label` with labels LUAD and LUSC, instead of the folders.
        **settings: further arguments of `SlideBags`.
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


def patient_of(slide_id: str) -> str:
    """Patient of a slide named by its TCGA barcode.

    Raises:
        UserError: the name is none.
    """
    if not slide_id.startswith("TCGA-") or len(slide_id) < BARCODE:
        raise UserError(f"slide {slide_id!r} is not named by a TCGA barcode (TCGA-05-4244-...): use data=slides")
    return slide_id[:BARCODE]
