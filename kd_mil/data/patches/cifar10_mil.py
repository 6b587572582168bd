"""Cifar10MIL: bags built from CIFAR-10."""

from pathlib import Path

import torch

from kd_mil.core.errors import UserError
from kd_mil.data.patches.built_bags import LabelledInstances
from kd_mil.data.patches.class_folder_mil import ClassFolderMIL


class Cifar10MIL(ClassFolderMIL):
    """CIFAR-10-MIL (Qu et al., NeurIPS 2022, Sec. 4.1): bags of 100 images, trucks are positive.

    Training bags come from the 50,000 training images, test bags from the 10,000 test images. Read from torchvision's
    download or from `train` and `test` class folders or archives. Arguments as in `ClassFolderMIL`.
    """

    folders = ("cifar10", "cifar-10-batches-py", "cifar10-jpg")
    source = (
        "CIFAR-10 (A. Krizhevsky, University of Toronto, https://www.cs.toronto.edu/~kriz/cifar.html: the Python "
        "version, unpacked to cifar-10-batches-py, or train and test folders of class folders)"
    )

    def read_root(self, root: Path) -> dict[str, LabelledInstances]:
        root = root.parent if root.name == "cifar-10-batches-py" else root
        if (root / "cifar-10-batches-py").is_dir():
            return {"train": read_torchvision(root, train=True), "test": read_torchvision(root, train=False)}
        return super().read_root(root)


def read_torchvision(root: Path, *, train: bool) -> LabelledInstances:
    """CIFAR-10 as torchvision stores it, checksums verified.

    Raises:
        UserError: an incomplete or damaged download.
    """
    from torchvision.datasets import CIFAR10

    try:
        data = CIFAR10(str(root), train=train, download=False)
    except RuntimeError as error:
        raise UserError(
            f"{root / 'cifar-10-batches-py'} is incomplete or damaged: unpack the download again"
        ) from error
    pixels = torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous()
    return LabelledInstances(pixels, torch.tensor(data.targets), tuple(data.classes))
