"""PatchMasks: your own images with image labels, from a CSV or folders; masks where there are some."""

from pathlib import Path

from kd_mil.core.errors import UserError
from kd_mil.core.tables import read_table
from kd_mil.data.datamodules import Loading
from kd_mil.data.masks.image_files import ImageEntry, ImageFileData, existing
from kd_mil.data.patches.image_files import image_paths
from kd_mil.data.splits import PARTS
from kd_mil.slides.slide_list import fold_of

LABEL_WORDS = {"0": 0, "1": 1, "neg": 0, "pos": 1, "negative": 0, "positive": 1}


class PatchMasks(ImageFileData):
    """Your own images.

    From a CSV: `image_path,label` and, where there are some, `mask_path,case_id,split,fold,image_id`; relative paths
    start at the CSV's folder; a label is 0, 1, neg, pos, negative or positive. From folders, as in IFKD's released
    code: `root/{train,val,test}/{pos,neg}/NAME` with masks of positive images in `root/{train,val,test}/gt/NAME.*`.

    Folders know no patients: give the CSV where a patient has several images.

    Args:
        root: folder of the parts; None with a CSV.
        manifest: the CSV; None with folders.
        **images: settings of `ImageFileData`.

    Raises:
        UserError: both or neither of root and manifest.
    """

    def __init__(
        self, loading: Loading, root: str | None = None, manifest: str | None = None, **images: object
    ) -> None:
        super().__init__(loading, **images)  # type: ignore[arg-type]
        self.root, self.manifest = root, manifest

    def entries(self) -> list[ImageEntry]:
        if self.manifest is not None and self.root is None:
            return read_image_table(Path(self.manifest))
        if self.root is None or self.manifest is not None:
            raise UserError("data=patch_masks takes data.root=FOLDER or data.manifest=FILE.csv: give one of them")
        return list_parts(Path(self.root))


def read_image_table(path: Path) -> list[ImageEntry]:
    """The images of a CSV, as `PatchMasks` says.

    Raises:
        UserError: no such CSV, a missing file, an unknown label or split; with the line.
    """
    table = read_table(path, ("image_path", "label"), ("mask_path", "case_id", "split", "fold", "image_id"))
    entries = []
    for line, row in zip(table.index, table.to_dict("records"), strict=True):
        where = f"{path}, line {line}"
        cells = {name: str(value).strip() for name, value in row.items() if isinstance(value, str) and value.strip()}
        if cells.get("label", "").lower() not in LABEL_WORDS:
            raise UserError(f"{where}: label {cells.get('label')!r} is none of {', '.join(LABEL_WORDS)}")
        if cells.get("split", "train") not in PARTS:
            raise UserError(f"{where}: split {cells['split']!r} is none of {', '.join(PARTS)}")
        mask = cells.get("mask_path")
        image = existing(path.parent / cells.get("image_path", ""), where)
        entries.append(
            ImageEntry(
                image_id=cells.get("image_id", cells["image_path"]),
                path=image,
                label=LABEL_WORDS[cells["label"].lower()],
                mask_path=None if mask is None else existing(path.parent / mask, where),
                case_id=cells.get("case_id"),
                split=cells.get("split"),
                fold=fold_of(row, where),
            )
        )
    return entries


def list_parts(root: Path) -> list[ImageEntry]:
    """The images of `root/{train,val,test}/{pos,neg}`.

    Raises:
        UserError: no such folders, or no images in one.
    """
    entries = []
    for part in PARTS:
        if part == "val" and not (root / part).is_dir():
            continue
        masks = {path.stem: path for path in image_paths(root / part / "gt")}
        for folder, label in (("neg", 0), ("pos", 1)):
            images = image_paths(root / part / folder)
            if not images:
                raise UserError(f"no images in {root / part / folder}: {PatchMasks.__name__} needs pos and neg there")
            entries += [
                ImageEntry(f"{part}/{folder}/{image.stem}", image, label, masks.get(image.stem), split=part)
                for image in images
            ]
    return entries
