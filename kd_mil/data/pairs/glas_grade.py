"""GlasGrade: gland images at two resolutions, benign against malignant.

Source: K. Sirinukunwattana et al., Gland Segmentation in Colon Histology Images: The GlaS Challenge Contest, Medical
Image Analysis 2017, arXiv:1603.00275.
"""

from typing import Any

from kd_mil.core.tables import read_table
from kd_mil.data.locations import find_root
from kd_mil.data.pairs.listing import Row, image_files
from kd_mil.data.pairs.pair_data import PairedImages
from kd_mil.data.pairs.stack import ImageSource
from kd_mil.data.patches.image_files import image_file


class GlasGrade(PairedImages):
    """Gland images graded benign or malignant (GlaS): 165 images at 20x of 16 patients, divided by patient.

    The published training and test parts share patients, so they are not used.

    Args:
        root: folder with `Grade.csv` and `images`; None = `glas` under `data_dir`.
        data_dir: folder of all data sets.
        **pairs: arguments of `PairedImages`.
    """

    def __init__(self, root: str | None, data_dir: str, **pairs: Any) -> None:
        super().__init__(**pairs)
        self.root, self.data_dir = root, data_dir

    def read(self) -> ImageSource:
        source = "GlaS (K. Sirinukunwattana et al. 2017, the Warwick-QU challenge data: Grade.csv and images)"
        root = find_root(self.root, self.data_dir, ("glas",), source)
        table = read_table(root / "Grade.csv", ("name", "patient ID", "grade (GlaS)"))
        rows = [
            Row(image_file(root / "images", row["name"]), row["grade (GlaS)"], row["name"], row["patient ID"])
            for _, row in table.iterrows()
        ]
        return image_files(rows, ["benign", "malignant"], str(root / "Grade.csv"))
