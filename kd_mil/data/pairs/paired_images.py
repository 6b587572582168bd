"""Image sets for resolution distillation: your own folders or table, and the two sets of the paper.

Source: J. DiPalma et al., Resolution-Based Distillation for Efficient Histology Image Classification, Artificial
Intelligence in Medicine 2021, arXiv:2101.04170.
"""

from collections.abc import Sequence
from typing import Any

from kd_mil.core.checks import above
from kd_mil.core.errors import UserError
from kd_mil.data.locations import find_root
from kd_mil.data.pairs.listing import folder_rows, image_files, table_rows
from kd_mil.data.pairs.pair_data import PairedImages
from kd_mil.data.pairs.stack import ImageSource


class ImageFolders(PairedImages):
    """Labelled images of any sizes, as class folders or as a table.

    The root is a CSV `image_path,label` with optional `image_id`, `case_id` (patient) and `split` (`train`, `val`,
    `test`, `auxiliary`; empty cells are divided), or a folder: class folders, or `train` and `test` (and `val`) of
    class folders, and perhaps `auxiliary`, a folder of images without labels.

    Args:
        root: the CSV or the folder; None = the set's own name under `data_dir`.
        data_dir: folder of all data sets.
        classes: names in the order of their index; None = the set's own, else sorted by name.
        mpp: µm per pixel of the originals; a teacher of other originals is refused. None = unknown.
        **pairs: arguments of `PairedImages`.
    """

    folders: tuple[str, ...] = ()
    """Names under which the set is found in `data_dir`."""
    source_text = "images of at least two classes"
    """What to get, from whom."""
    own_classes: tuple[str, ...] | None = None

    def __init__(
        self,
        root: str | None,
        data_dir: str,
        classes: Sequence[str] | None = None,
        mpp: float | None = None,
        **pairs: Any,
    ) -> None:
        super().__init__(**pairs)
        if mpp is not None:
            above("data.mpp", mpp)
        self.mpp = mpp
        self.root, self.data_dir = root, data_dir
        self.classes = self.own_classes if classes is None else tuple(classes)

    @property
    def instance_source(self) -> dict[str, Any]:
        """The resolution of the originals, where known."""
        return super().instance_source | ({} if self.mpp is None else {"mpp": float(self.mpp)})

    def read(self) -> ImageSource:
        if self.root is None and not self.folders:
            raise UserError("data.root is not set: point it to a CSV image_path,label or to a folder of class folders")
        root = find_root(self.root, self.data_dir, self.folders, self.source_text)
        rows = table_rows(root) if root.is_file() else folder_rows(root)
        return image_files(rows, self.classes, str(root))


class Celiac(ImageFolders):
    """Duodenal biopsies of DiPalma et al. 2021, Sec. 4.2: tissues at 10x; 210 patients train, 45 validate, 45 test.

    `celiac/images.csv` with `image_path,label,case_id,split`; the 300 or 1,004 auxiliary patients as split `auxiliary`.
    """

    folders = ("celiac/images.csv",)
    own_classes = ("Normal", "Non-specific Duodenitis", "Celiac Sprue")
    source_text = (
        "the celiac disease tissues of DiPalma et al. 2021 (not public: ask the authors) with a table "
        "image_path,label,case_id,split"
    )


class Luad(ImageFolders):
    """Lung adenocarcinoma patterns of DiPalma et al. 2021, Sec. 4.3: tissues of 235 training and 34 test slides.

    `luad/images.csv` with `image_path,label,case_id,split`; validation cases are held out of the training part.
    """

    folders = ("luad/images.csv",)
    own_classes = ("Lepidic", "Acinar", "Papillary", "Micropapillary", "Solid")
    source_text = (
        "the lung adenocarcinoma tissues of DiPalma et al. 2021 (not public: ask the authors) with a table "
        "image_path,label,case_id,split"
    )
