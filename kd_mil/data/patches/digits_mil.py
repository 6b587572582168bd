"""DigitsMIL: bags of real handwritten digits that come with scikit-learn; needs no download."""

from collections.abc import Sequence
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor

from kd_mil.core.errors import UserError
from kd_mil.data.bags import Bags, BagSplits
from kd_mil.data.datamodules import Loading
from kd_mil.data.patches.bag_builder import BagPlan, build_bags
from kd_mil.data.patches.built_bags import BuiltBags, LabelledInstances, positive_mask
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


class DigitsClasses(DigitsMIL):
    """`DigitsMIL` with a class for each positive digit: a bag holds digits of one of them, or of none (class 0).

    Args:
        loading: as in `BagDataModule`.
        positive_classes: digits, each a class of its own, in this order.
        bag_length: instances per bag.
        positive_ratio: share of instances of its class in a positive bag, in (0, 1].
        positive_bag_ratio: share of positive bags, in (0, 1).
        split_file: CSV `bag_id,split` that replaces the split.
        seed: of the bags, the split and the visiting order.

    Raises:
        UserError: a class that is no digit or named twice, or ratios for which there are too few digits.
    """

    def __init__(
        self,
        loading: Loading,
        positive_classes: Sequence[str | int] = (7, 8, 9),
        bag_length: int = 10,
        positive_ratio: float = 0.2,
        positive_bag_ratio: float = 0.5,
        split_file: str | None = None,
        seed: int = 0,
    ) -> None:
        ratios = {"positive_ratio": positive_ratio, "positive_bag_ratio": positive_bag_ratio}
        super().__init__(loading, positive_classes, bag_length, **ratios, split_file=split_file, seed=seed)
        if len(set(self.positive_classes)) < len(self.positive_classes):
            raise UserError(f"data.positive_classes={list(positive_classes)}: each class once")

    def load(self) -> BagSplits:
        """Cut every part into bags, class by class."""
        instances, sizes, labels, truth, names = [], [], [], [], []
        positions, start = {}, 0
        for name, part in self.read().items():
            classes = self.classes_of(part)
            plan = self.plan(classes)
            count = len(plan.labels)
            instances.append(part.select(plan.instances.flatten()).instances)
            truth.append(classes[plan.instances.flatten()])
            labels.append(plan.labels)
            sizes.append(torch.full((count,), self.bag_length))
            names += [f"{name}_{number:05d}" for number in range(count)]
            positions[name] = torch.arange(start, start + count)
            start += count
        bags = Bags(
            instances=torch.cat([pixels for pixels in instances if isinstance(pixels, Tensor)]),
            sizes=torch.cat(sizes),
            labels=torch.cat(labels),
            bag_ids=names,
            instance_labels=torch.cat(truth),
            class_names=("negative", *(f"digit_{name}" for name in self.positive_classes)),
        )
        return BagSplits(bags, **positions)

    def classes_of(self, part: LabelledInstances) -> Tensor:
        """Class (N,) of every instance: 0, or 1 + the place of its digit among the positive classes."""
        masks = [positive_mask(part, [name]) for name in self.positive_classes]
        return torch.stack([mask.long() * number for number, mask in enumerate(masks, start=1)]).sum(0)

    def plan(self, classes: Tensor) -> BagPlan:
        """Bags of each class from an equal share of the negative instances."""
        generator = torch.Generator().manual_seed(self.seed)
        negatives = (classes == 0).nonzero().flatten()
        negatives = negatives[torch.randperm(len(negatives), generator=generator)]
        plans = []
        for number, share in enumerate(negatives.chunk(len(self.positive_classes)), start=1):
            chosen = torch.cat([(classes == number).nonzero().flatten(), share])
            built = build_bags(
                classes[chosen] == number,
                self.bag_length,
                self.positive_ratio,
                self.positive_bag_ratio,
                seed=self.seed + number,
            )
            plans.append(BagPlan(chosen[built.instances], built.labels * number))
        return BagPlan(torch.cat([plan.instances for plan in plans]), torch.cat([plan.labels for plan in plans]))
