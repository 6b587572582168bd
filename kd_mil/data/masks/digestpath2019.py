"""DigestPath2019: colonoscopy tissue with and without lesions."""

from kd_mil.core.errors import UserError
from kd_mil.data.datamodules import Loading
from kd_mil.data.locations import find_root
from kd_mil.data.masks.image_files import ImageEntry, ImageFileData, existing
from kd_mil.data.patches.image_files import image_paths

DIGESTPATH_SOURCE = "the colonoscopy tissue segmentation set of DigestPath2019 (tissue-train-pos-v1, tissue-train-neg)"


class DigestPath2019(ImageFileData):
    """DigestPath2019: H&E colonoscopy images of some thousand pixels a side, malignant ones with lesion masks.

    `tissue-train-pos-v1/NAME.jpg` with `NAME_mask.jpg`, and `tissue-train-neg/NAME.jpg`. The case is what the file name
    begins with, up to the first underscore, where the scanner wrote the number of the block; check it on your copy, or
    give the split by `split_file`.

    Args:
        root: holds the two folders; None = looked for under `data_dir`.
        data_dir: folder of all data sets.
        **images: settings of `ImageFileData`.
    """

    def __init__(self, loading: Loading, root: str | None, data_dir: str, **images: object) -> None:
        super().__init__(loading, **images)  # type: ignore[arg-type]
        self.root, self.data_dir = root, data_dir

    def entries(self) -> list[ImageEntry]:
        names = ("digestpath2019", "DigestPath2019", "Colonoscopy_tissue_segment_dataset")
        root = find_root(self.root, self.data_dir, names, DIGESTPATH_SOURCE)
        positive = next(
            (root / name for name in ("tissue-train-pos-v1", "tissue-train-pos") if (root / name).is_dir()), root
        )
        entries = []
        for folder, label in ((root / "tissue-train-neg", 0), (positive, 1)):
            found = [path for path in image_paths(folder) if not path.stem.endswith("_mask")]
            if not found:
                raise UserError(f"no images in {folder}: data.root must hold {DIGESTPATH_SOURCE}")
            for path in found:
                mask = existing(path.with_name(f"{path.stem}_mask{path.suffix}"), str(path)) if label else None
                case = path.stem.split("_")[0]
                entries.append(ImageEntry(f"{folder.name}/{path.stem}", path, label, mask, case_id=case))
        return entries
