"""Image sets for resolution distillation: anybody's folders or table, the paper's, GlaS, CIFAR-10."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from kd_mil.data.built_bags import LabelledInstances
from kd_mil.data.class_folders import find_part, read_class_folders
from kd_mil.data.image_pairs import ImageSource
from kd_mil.data.image_rows import Row, folder_rows, image_file, image_files, table_rows
from kd_mil.data.image_sets import Cifar10MIL, read_torchvision
from kd_mil.data.locations import find_root
from kd_mil.data.paired_images import PairedImages
from kd_mil.data.tables import read_csv
from kd_mil.errors import UserError


class ImageFolders(PairedImages):
    """Labelled images of any sizes, as class folders or as a table.

    The root is a CSV `image_path,label` with optional `image_id`, `case_id` (patient) and `split` (`train`, `val`,
    `test`, `auxiliary`; empty cells are divided), or a folder: class folders, or `train` and `test` (and `val`) of
    class folders, and perhaps `auxiliary`, a folder of images without labels.

    Args:
        root: the CSV or the folder; None = the set's own name under `data_dir`.
        data_dir: folder of all data sets.
        classes: names in the order of their index; None = the set's own, else sorted by name.
        **pairs: arguments of `PairedImages`.
    """

    folders: tuple[str, ...] = ()
    """Names under which the set is found in `data_dir`."""
    source_text = "images of at least two classes"
    """What to get, from whom."""
    own_classes: tuple[str, ...] | None = None

    def __init__(self, root: str | None, data_dir: str, classes: Sequence[str] | None = None, **pairs: Any) -> None:
        super().__init__(**pairs)
        self.root, self.data_dir = root, data_dir
        self.classes = self.own_classes if classes is None else tuple(classes)

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
        table = read_csv(root / "Grade.csv", ("name", "patient ID", "grade (GlaS)"))
        rows = [
            Row(image_file(root / "images", row["name"]), row["grade (GlaS)"], row["name"], row["patient ID"])
            for _, row in table.iterrows()
        ]
        return image_files(rows, ["benign", "malignant"], str(root / "Grade.csv"))


class Cifar10Paired(PairedImages):
    """CIFAR-10 at 32 pixels for the teacher and 16 or 8 for the student.

    Args:
        root: as in `Cifar10MIL`; None = looked for under `data_dir`.
        data_dir, cache_dir: folder of all data sets, and of decoded archives.
        max_train_images: take this many of the training images, the same number of each class; they are divided into
            train, val and auxiliary.
        max_test_images: likewise.
        **pairs: arguments of `PairedImages`.
    """

    def __init__(
        self,
        root: str | None,
        data_dir: str,
        cache_dir: str,
        max_train_images: int | None = None,
        max_test_images: int | None = None,
        **pairs: Any,
    ) -> None:
        super().__init__(**pairs)
        self.root, self.data_dir, self.cache_dir = root, data_dir, cache_dir
        self.limits = {"train": max_train_images, "test": max_test_images}

    def read(self) -> ImageSource:
        root = find_root(self.root, self.data_dir, Cifar10MIL.folders, Cifar10MIL.source)
        chosen = {
            part: first_of_each(self._read_part(root, part), limit, f"data.max_{part}_images")
            for part, limit in self.limits.items()
        }
        images = torch.cat([one.instances for one in chosen.values()])  # type: ignore[misc]
        return ImageSource(
            ids=[f"{part}{at}" for part, one in chosen.items() for at in range(len(one.labels))],
            labels=torch.cat([one.labels for one in chosen.values()]),
            class_names=chosen["train"].class_names,
            open=lambda at: Image.fromarray(images[at].permute(1, 2, 0).numpy()),
            parts=[part for part, one in chosen.items() for _ in one.labels],
        )

    def _read_part(self, root: Path, part: str) -> LabelledInstances:
        outer = root.parent if root.name == "cifar-10-batches-py" else root
        if (outer / "cifar-10-batches-py").is_dir():
            return read_torchvision(outer, train=part == "train")
        source = find_part(root, part)
        if source is None:
            raise UserError(f"{root} holds no {part} folder or archive: unpack {Cifar10MIL.source} there")
        found = read_class_folders(source, image_size=None, cache_dir=self.cache_dir, max_gib=4.0)
        if isinstance(found.instances, torch.Tensor):
            return found
        return LabelledInstances(found.instances.read(), found.labels, found.class_names)


def first_of_each(images: LabelledInstances, limit: int | None, setting: str) -> LabelledInstances:
    """The first images of each class, `limit` in all.

    Raises:
        UserError: a limit that the classes do not divide, or too few images; names the `setting`.
    """
    if limit is None:
        return images
    each, rest = divmod(limit, len(images.class_names))
    positions = [(images.labels == label).nonzero().flatten()[:each] for label in range(len(images.class_names))]
    if rest or each < 1 or min(len(one) for one in positions) < each:
        most = len(positions) * int(images.labels.bincount(minlength=len(positions)).min())
        raise UserError(f"{setting}={limit}: must be a multiple of the {len(positions)} classes, at most {most}")
    return images.select(torch.cat(positions))
