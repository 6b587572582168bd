"""Glas: images of colon glands with masks, as tumour segmentation.

Source: K. Sirinukunwattana et al., Gland Segmentation in Colon Histology Images: The GlaS Challenge Contest, Medical
Image Analysis 2017, arXiv:1603.00275.
"""

from kd_mil.core.errors import UserError
from kd_mil.core.tables import read_table
from kd_mil.data.datamodules import Loading
from kd_mil.data.locations import find_root
from kd_mil.data.masks.image_files import ImageEntry, ImageFileData
from kd_mil.data.masks.mask_data import ImageSize
from kd_mil.data.patches.image_files import image_paths

GLAS_SOURCE = (
    "GlaS (K. Sirinukunwattana et al., Medical Image Analysis 2017, Warwick-QU) as images/ and masks/ of the same "
    "names with Grade.csv"
)
GRADES = {"benign": 0, "malignant": 1}


class Glas(ImageFileData):
    """GlaS as weakly supervised tumour segmentation: 165 H&E images of colon at 20x (0.62 µm per pixel), 16 patients.

    Positive are malignant images, their glands are tumour; benign images are negative as a whole, their glands too.
    The published parts train, testA and testB share patients: images are dealt to folds by patient instead, so that
    no patient is in two parts. Four patients are wholly benign, which limits the folds to 4.

    Args:
        root: holds images/, masks/ and Grade.csv; None = looked for under `data_dir`.
        data_dir: folder of all data sets.
        **images: settings of `ImageFileData`.
    """

    def __init__(
        self,
        loading: Loading,
        root: str | None,
        data_dir: str,
        image_size: ImageSize = (256, 384),
        num_folds: int = 4,
        val_fraction: float = 0.2,
        **images: object,
    ) -> None:
        sizes = {"image_size": image_size, "num_folds": num_folds, "val_fraction": val_fraction}
        super().__init__(loading, **sizes, **images)  # type: ignore[arg-type]
        self.root, self.data_dir = root, data_dir

    def entries(self) -> list[ImageEntry]:
        root = find_root(self.root, self.data_dir, ("glas", "GlaS", "Warwick_QU_Dataset"), GLAS_SOURCE)
        table = read_table(root / "Grade.csv", ("name", "patient ID", "grade (GlaS)"))
        images = {path.stem: path for path in image_paths(root / "images")}
        masks = {path.stem: path for path in image_paths(root / "masks")}
        entries = []
        for line, row in zip(table.index, table.to_dict("records"), strict=True):
            name, grade = row["name"], row["grade (GlaS)"]
            where = f"{root / 'Grade.csv'}, line {line}"
            if grade not in GRADES:
                raise UserError(f"{where}: grade {grade!r} is none of {', '.join(GRADES)}")
            if name not in images or name not in masks:
                raise UserError(f"{where}: no image or no mask {name!r} in {root}: it must hold {GLAS_SOURCE}")
            entries.append(
                ImageEntry(name, images[name], GRADES[grade], masks[name], case_id=f"patient {row['patient ID']}")
            )
        return entries
