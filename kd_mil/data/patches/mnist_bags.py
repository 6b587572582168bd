"""MNIST bags of Gaussian size: positive if they hold a chosen digit."""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from kd_mil.core.checks import at_least
from kd_mil.core.errors import UserError
from kd_mil.core.readable import readable
from kd_mil.data.bags import Bags, BagSplits
from kd_mil.data.datamodules import BagDataModule, Loading
from kd_mil.data.locations import find_root

SOURCE = (
    "MNIST (Y. LeCun et al.; torchvision.datasets.MNIST(root, download=True) leaves a folder MNIST/raw, or an archive "
    "mnist.npz of x_train, y_train, x_test, y_test)"
)
HELD_OUT = 10_000
"""Last training images, of which validation bags are made."""
DRAWS = 10_000
"""Bags of one size that are drawn before a label counts as out of reach; 20 digits need 8 for a negative bag."""


class Digits(NamedTuple):
    """Images of one part."""

    images: Tensor
    """(N, 28, 28) uint8."""
    labels: Tensor
    """(N,) int64 in 0..9."""


class MnistBags(BagDataModule):
    """Bags of MNIST digits as in Fig. 2 of Thiagarajan et al. 2019, after Ilse et al. 2018.

    Training bags come from the first 50,000 training images, validation bags from the other 10,000, and test bags,
    which the paper calls validation bags, from the 10,000 test images; a part never lends an image to another. A bag
    draws its size first and then its images, with replacement, until it has the label it is to have: sizes tell nothing
    about labels. Instances are (1, 28, 28) uint8 and their labels are known.

    Args:
        root: folder with MNIST/raw, or with mnist.npz, or such a file; None = looked for under `data_dir`.
        data_dir: folder of all data sets.
        loading: as in `BagDataModule`.
        positive_digit: its presence makes a bag positive.
        mean_size: mean number of instances in a bag; sizes are rounded and at least 1.
        size_variance: of the number of instances.
        num_train_bags, num_val_bags, num_test_bags: bags of each part; more of one keep those that were there.
        balanced: every other bag is positive; False leaves the label to chance (65 % positive at a mean of 10).
        split_file: CSV `bag_id,split` that replaces the split.
        seed: of the bags.

    Raises:
        UserError: a number out of range, or bags of a size at which one of the labels hardly occurs.
    """

    def __init__(
        self,
        root: str | None,
        data_dir: str,
        loading: Loading,
        positive_digit: int = 9,
        mean_size: float = 10.0,
        size_variance: float = 5.0,
        num_train_bags: int = 100,
        num_val_bags: int = 1000,
        num_test_bags: int = 1000,
        balanced: bool = True,
        split_file: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(loading, split_file, seed)
        self.root, self.data_dir, self.positive_digit, self.balanced = root, data_dir, positive_digit, balanced
        self.mean_size, self.size_variance = mean_size, size_variance
        self.counts_by_part = {"train": num_train_bags, "val": num_val_bags, "test": num_test_bags}
        if positive_digit not in range(10):
            raise UserError(f"data.positive_digit={positive_digit}: must be one of 0..9")
        at_least("data.mean_size", mean_size, 1)
        at_least("data.size_variance", size_variance, 0)
        for part, count in self.counts_by_part.items():
            if count < 2:
                raise UserError(f"data.num_{part}_bags={count}: at least 2, one of each label")

    def load(self) -> BagSplits:
        """Read the images and draw the bags of every part."""
        folders = ("MNIST", "mnist", "mnist.npz")
        parts = read_mnist(find_root(self.root, self.data_dir, folders, SOURCE))
        images, labels, sizes, chosen_digits, positions = [], [], [], [], []
        for number, (part, digits) in enumerate(parts.items()):
            generator = np.random.default_rng([self.seed, number])
            drawn = self._draw(digits.labels.numpy(), self.counts_by_part[part], generator)
            chosen = torch.from_numpy(np.concatenate(drawn))
            images.append(digits.images[chosen].unsqueeze(1))
            chosen_digits.append(digits.labels[chosen])
            sizes += [len(bag) for bag in drawn]
            labels += [int((digits.labels[bag] == self.positive_digit).any()) for bag in drawn]
            positions.append(torch.arange(len(sizes) - len(drawn), len(sizes)))
        bags = Bags(
            instances=torch.cat(images),
            sizes=torch.tensor(sizes),
            labels=torch.tensor(labels),
            bag_ids=[f"{part}_{number:05d}" for part, count in self.counts_by_part.items() for number in range(count)],
            instance_labels=(torch.cat(chosen_digits) == self.positive_digit).long(),
        )
        return BagSplits(bags, *positions)

    def _draw(self, digits: np.ndarray, count: int, generator: np.random.Generator) -> list[np.ndarray]:
        """Positions of the images of each of `count` bags."""
        bags = []
        for number in range(count):
            size = max(1, round(generator.normal(self.mean_size, math.sqrt(self.size_variance))))
            for _ in range(DRAWS):
                bag = generator.integers(len(digits), size=size)
                if not self.balanced or (digits[bag] == self.positive_digit).any() == (number % 2 == 0):
                    break
            else:
                raise UserError(
                    f"data.mean_size={self.mean_size:g}: {DRAWS} bags of {size} digits are all "
                    f"{'without' if number % 2 == 0 else 'with'} a {self.positive_digit}: choose another size, or "
                    "data.balanced=false"
                )
            bags.append(bag)
        return bags


def read_mnist(root: Path) -> dict[str, Digits]:
    """Images for training, validation and test bags.

    Raises:
        UserError: no MNIST there, a damaged one, or images of another form.
    """
    archive = root if root.suffix == ".npz" else root / "mnist.npz"
    train, test = _read_archive(archive) if archive.is_file() else _read_torchvision(root)
    if len(train.labels) <= HELD_OUT:
        raise UserError(f"{root} holds {len(train.labels)} training images, MNIST has 60000: download it again")
    for part in (train, test):
        if part.images.shape != (len(part.labels), 28, 28) or part.images.dtype != torch.uint8:
            raise UserError(
                f"{root}: images of shape {tuple(part.images.shape)} and type {part.images.dtype} for "
                f"{len(part.labels)} labels, MNIST has (N, 28, 28) of bytes"
            )
    held = Digits(train.images[-HELD_OUT:], train.labels[-HELD_OUT:])
    return {"train": Digits(train.images[:-HELD_OUT], train.labels[:-HELD_OUT]), "val": held, "test": test}


def _read_archive(path: Path) -> tuple[Digits, Digits]:
    with readable(path, "not an archive of x_train, y_train, x_test, y_test"), np.load(path) as arrays:
        parts = [(arrays[f"x_{part}"], arrays[f"y_{part}"]) for part in ("train", "test")]
    train, test = (Digits(torch.from_numpy(x), torch.from_numpy(y.astype(np.int64))) for x, y in parts)
    return train, test


def _read_torchvision(root: Path) -> tuple[Digits, Digits]:
    from torchvision.datasets import MNIST

    root = root.parent if (root / "raw").is_dir() else root
    try:
        train, test = (MNIST(str(root), train=train) for train in (True, False))
    except RuntimeError as error:
        raise UserError(f"{root} holds no MNIST: give it mnist.npz, or {SOURCE}") from error
    return Digits(train.data, train.targets), Digits(test.data, test.targets)
