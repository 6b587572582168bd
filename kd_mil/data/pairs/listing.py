"""Lists of labelled image files: from a CSV table or from folders, checked before anything is decoded."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image

from kd_mil.core.errors import UserError
from kd_mil.core.suggestions import did_you_mean
from kd_mil.core.tables import read_table
from kd_mil.data.pairs.stack import ImageSource
from kd_mil.data.patches.image_files import image_paths
from kd_mil.data.splits import AUXILIARY, PARTS
from kd_mil.slides.formats.image_decoding import IMAGE_SUFFIXES, decode_rgb


class Row(NamedTuple):
    """One image of a table or folder; an empty label or split is unknown."""

    path: Path
    label: str
    image_id: str
    case_id: str = ""
    split: str = ""


@dataclass(frozen=True)
class ImageReader:
    """Decodes images by their position; travels to worker processes."""

    paths: list[Path]

    def __call__(self, index: int) -> Image.Image:
        """The image, RGB."""
        return decode_rgb(self.paths[index])


def image_files(rows: list[Row], classes: Sequence[str] | None, where: str) -> ImageSource:
    """A source of image files, checked: no image twice, labels among the classes. Reading finds files that are missing.

    Raises:
        UserError: naming `where` and the image.
    """
    names = list(classes) if classes is not None else sorted({row.label for row in rows} - {""})
    index = {name: number for number, name in enumerate(names)} | {"": -1}
    seen: set[str] = set()
    if rows and not any(row.path.is_file() for row in rows):
        raise UserError(f"{where}: there is no image {rows[0].path}, and none of the others")
    for row in rows:
        if row.label not in index:
            raise UserError(f"{where}: label {row.label!r} of image {row.image_id!r}; {did_you_mean(row.label, names)}")
        if row.image_id in seen:
            raise UserError(f"{where}: image {row.image_id!r} is listed twice")
        if row.split not in ("", *PARTS, AUXILIARY):
            raise UserError(f"{where}: split {row.split!r} of image {row.image_id!r} is no part")
        seen.add(row.image_id)
    paths = [row.path for row in rows]
    return ImageSource(
        ids=[row.image_id for row in rows],
        labels=torch.tensor([index[row.label] for row in rows]),
        class_names=tuple(names),
        open=ImageReader(paths),
        cases=[row.case_id or row.image_id for row in rows],
        parts=[row.split for row in rows],
    )


def table_rows(path: Path) -> list[Row]:
    """Images of a CSV; relative paths start at its folder."""
    table = read_table(path, ("image_path", "label"), ("image_id", "case_id", "split"))
    for column in ("image_id", "case_id", "split"):
        if column not in table:
            table[column] = ""
    columns = zip(*(table[name] for name in ("image_path", "label", "image_id", "case_id", "split")), strict=True)
    return [
        Row(path.parent / name, label, image_id or name, case, split) for name, label, image_id, case, split in columns
    ]


def folder_rows(root: Path) -> list[Row]:
    """Images of class folders, or of `train`, `val` and `test` folders of them; `auxiliary` holds images only."""
    rows = [Row(path, "", str(path.relative_to(root)), split=AUXILIARY) for path in image_paths(root / AUXILIARY)]
    parts = {part: root / part for part in PARTS if (root / part).is_dir()}
    if parts and not parts.keys() >= {"train", "test"}:
        raise UserError(f"{root} holds {' and '.join(parts)}, but both train and test are needed")
    for part, folder in (parts or {"": root}).items():
        classes = sorted(item for item in folder.iterdir() if item.is_dir() and item.name != AUXILIARY)
        for class_folder in classes:
            found = image_paths(class_folder)
            if not found:
                raise UserError(f"class folder {class_folder} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
            rows += [Row(path, class_folder.name, str(path.relative_to(root)), split=part) for path in found]
    if not any(row.label for row in rows):
        raise UserError(f"{root} holds no class folders: one folder of images per class is expected")
    return rows
