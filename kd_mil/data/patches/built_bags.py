"""Data sets of labelled instances whose bags are cut by WENO's builder."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from kd_mil.core.errors import UserError
from kd_mil.core.suggestions import did_you_mean
from kd_mil.data.bags import Bags, BagSplits
from kd_mil.data.datamodules import BagDataModule, Loading
from kd_mil.data.patches.bag_builder import BagPlan, build_bags, limit_bags
from kd_mil.data.patches.image_files import ImageFiles
from kd_mil.data.splits import hold_out


class LabelledInstances(NamedTuple):
    """Instances of known class: what the builder cuts into bags."""

    instances: Tensor | ImageFiles
    """(N, ...)"""
    labels: Tensor
    """(N,) int64 in [0, len(class_names))."""
    class_names: tuple[str, ...]

    def select(self, positions: Tensor) -> "LabelledInstances":
        """The instances at `positions` (M,) int64; images in files stay unread."""
        return self._replace(instances=pick(self.instances, positions), labels=self.labels[positions])


class BuiltBags(BagDataModule):
    """Bags of `bag_length` instances; a bag is positive if it holds any instance of a positive class.

    A data set says what its instances are, in parts that never mix: `train`, `test` and, where it has one, `val`.
    Without a `val` part a share of the training bags is held out, so that a published number of training images is
    used up. A bag is named after the part it was cut from.

    Args:
        positive_classes: names of the positive classes; all others are negative.
        loading: as in `BagDataModule`.
        bag_length: instances per bag.
        positive_ratio: share of positive instances in a positive bag, in (0, 1].
        positive_bag_ratio: share of positive bags, in (0, 1).
        val_fraction: share of the training bags held out for validation where there is no `val` part.
        max_train_bags: use fewer bags for training and validation together, both labels in proportion.
        max_test_bags: use fewer test bags.
        split_file: CSV `bag_id,split` that replaces the split.
        seed: of the bags, the split and the visiting order.
    """

    def __init__(
        self,
        positive_classes: Sequence[str | int],
        loading: Loading,
        bag_length: int = 100,
        positive_ratio: float = 0.2,
        positive_bag_ratio: float = 0.5,
        val_fraction: float = 0.1,
        max_train_bags: int | None = None,
        max_test_bags: int | None = None,
        split_file: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(loading, split_file, seed)
        self.positive_classes = [str(name) for name in positive_classes]
        self.bag_length, self.val_fraction = bag_length, val_fraction
        self.positive_ratio, self.positive_bag_ratio = positive_ratio, positive_bag_ratio
        self.max_bags = {"train": max_train_bags, "test": max_test_bags}

    def read(self) -> dict[str, LabelledInstances]:
        """The instances of `train`, `test` and, where the data set has one, `val`."""
        raise NotImplementedError(f"{type(self).__name__} does not say how to read its instances")

    def load(self) -> BagSplits:
        """Cut every part into bags, and read the pixels of those instances that are in one."""
        parts = self.read()
        masks = {name: positive_mask(part, self.positive_classes) for name, part in parts.items()}
        plans = {name: self._plan(name, mask) for name, mask in masks.items()}
        chosen = {name: plan.instances.flatten() for name, plan in plans.items()}
        counts = {name: len(plan.labels) for name, plan in plans.items()}
        bags = Bags(
            instances=gather([(parts[name].instances, chosen[name]) for name in parts], self.loading.host_bytes),
            sizes=torch.full((sum(counts.values()),), self.bag_length),
            labels=torch.cat([plan.labels for plan in plans.values()]),
            bag_ids=[f"{name}_{number:05d}" for name in parts for number in range(counts[name])],
            instance_labels=torch.cat([masks[name][chosen[name]].long() for name in parts]),
        )
        positions = dict(zip(counts, torch.arange(len(bags)).split(list(counts.values())), strict=True))
        if "val" not in positions:
            positions["train"], positions["val"] = hold_out(
                bags.labels, None, positions["train"], self.val_fraction, self.seed
            )
        return BagSplits(bags, **positions)

    def _plan(self, part: str, is_positive: Tensor) -> BagPlan:
        try:
            plan = build_bags(
                is_positive, self.bag_length, self.positive_ratio, self.positive_bag_ratio, seed=self.seed
            )
        except UserError as error:
            raise UserError(f"{part} part: {error}") from error
        return limit_bags(plan, self.max_bags.get(part))


def positive_mask(part: LabelledInstances, positive_classes: Sequence[str]) -> Tensor:
    """(N,) bool: which instances are of a positive class.

    Raises:
        UserError: no class at all, or one that the data set does not have.
    """
    if not positive_classes:
        raise UserError(f"data.positive_classes is empty: name at least one of {', '.join(part.class_names)}")
    for name in positive_classes:
        if name not in part.class_names:
            raise UserError(f"positive class {name!r} is not in the data; {did_you_mean(name, part.class_names)}")
    wanted = torch.tensor([part.class_names.index(name) for name in positive_classes])
    return torch.isin(part.labels, wanted)


def pick(instances: Tensor | ImageFiles, positions: Tensor) -> Tensor | ImageFiles:
    """The instances at `positions` (M,) int64; images in files stay unread."""
    return instances[positions] if isinstance(instances, Tensor) else instances.select(positions)


def gather(chosen: Sequence[tuple[Tensor | ImageFiles, Tensor]], resident_bytes: float) -> Tensor | ImageFiles:
    """The instances at the chosen positions, end to end; images in files are read where they fit, else stay there.

    Raises:
        UserError: images of unequal size.
    """
    picked = [pick(instances, positions) for instances, positions in chosen]
    for other in picked[1:]:
        if other.shape[1:] != picked[0].shape[1:]:
            raise UserError(
                f"parts of unequal instance shape, {tuple(picked[0].shape[1:])} and {tuple(other.shape[1:])}: "
                "for images, set data.image_size=PIXELS"
            )
    files = [images for images in picked if isinstance(images, ImageFiles)]
    if len(files) == len(picked):
        joined = ImageFiles([path for images in files for path in images.paths], files[0].size)
        return joined.read() if joined.nbytes <= resident_bytes else joined
    return torch.cat([images.read() if isinstance(images, ImageFiles) else images for images in picked])
