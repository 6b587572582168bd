"""DigitsMIL: bags of real handwritten digits that come with scikit-learn; needs no download."""

from collections.abc import Sequence
from typing import Any

import torch
from sklearn.datasets import load_digits

from kd_mil.data.built_bags import BuiltBags, LabelledInstances
from kd_mil.data.datamodules import Loading
from kd_mil.data.splits import hold_out


class DigitsMIL(BuiltBags):
    """1797 images of 8x8 pixels, divided 60/20/20 digit by digit before the bags are cut.

    Instances are (1, 8, 8) uint8 in 0..255 and their labels are known. Source: E. Alpaydin, C. Kaynak, Optical
    Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998 (the test set).

    Args:
        loading: as in `BagDataModule`.
        positive_classes: digits that make a bag positive.
        bag_length: instances per bag.
        **bags: further arguments of `BuiltBags`: ratios, limits, split file, seed.
    """

    def __init__(
        self, loading: Loading, positive_classes: Sequence[str | int] = (9,), bag_length: int = 10, **bags: Any
    ) -> None:
        super().__init__(positive_classes, loading, bag_length, **bags)

    def read(self) -> dict[str, LabelledInstances]:
        digits = load_digits()
        pixels = torch.from_numpy(digits.images).mul(255 / 16).round().to(torch.uint8).unsqueeze(1)
        labels = torch.from_numpy(digits.target).long()
        everything = LabelledInstances(pixels, labels, tuple(str(name) for name in digits.target_names))
        rest, test = hold_out(labels, None, torch.arange(len(labels)), 0.2, self.seed)
        train, val = hold_out(labels, None, rest, 0.25, self.seed)
        return {"train": everything.select(train), "val": everything.select(val), "test": everything.select(test)}
