"""The data modules shared by sets of bags and of images; a data set subclasses one and says how to load."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from kd_mil.core.checks import at_least
from kd_mil.data.bags import Bags, BagSplits
from kd_mil.data.case_bags import merged_by_case
from kd_mil.data.distillation_data import DistillationData
from kd_mil.data.loading import Loading
from kd_mil.data.samplers import (
    BagSampler,
    EpochSampler,
    IndexedView,
    InstanceSampler,
    InstancesBySlide,
    InTurn,
    MoreBags,
    equal_shares,
)
from kd_mil.data.split_table import bags_fingerprint, split_table
from kd_mil.data.splits import PARTS, apply_split_file, check_splits, refuse_twins

Unit = Literal["slide", "case"]
Pooling = Literal["max", "mean"]


class SplitDataModule(DistillationData):
    """Instances in bags, or images as bags of one, split into train, val and test; loads once.

    Args:
        loading: batch sizes, token budgets, residency, workers.
        split_file: CSV `bag_id,split` that replaces the data set's own split.
        seed: of what the data set draws (bags, splits); the order of visits follows the seed of the run.
    """

    splits: BagSplits
    twins: Sequence[Sequence[int]] = ()
    """Groups of bags of equal content, by position; no split, drawn or given, may spread one over parts."""
    bag_by: Unit = "slide"
    """What a bag is: `slide`, or `case`, all slides of one."""
    report_by: Unit = "slide"
    """With `case`, cases are scored as well as bags, from the probabilities of their bags."""
    case_pooling: Pooling = "max"
    """How: those of the most positive bag (`max`), or their `mean`."""
    check = True
    """Whether a split that would mislead is refused; off only where all its faults are to be listed."""

    def __init__(self, loading: Loading, split_file: str | None = None, seed: int = 0) -> None:
        super().__init__()
        self.loading, self.split_file, self.seed = loading, split_file, seed

    def load(self) -> BagSplits:
        """Read the data set. The one method a set of bags must write."""
        raise NotImplementedError(f"{type(self).__name__} does not say how to load its data")

    def setup(self, stage: str | None = None) -> None:
        """Load, check and place the bags; safe to call again."""
        if not hasattr(self, "splits"):
            splits = self.load()
            if self.split_file is not None:
                splits = apply_split_file(splits, self.split_file)
            if self.check:
                check_splits(splits)
                part_of = {bag: part for part in PARTS for bag in getattr(splits, part).tolist()}
                refuse_twins(self.twins, part_of, splits.bags.bag_ids)
            if self.bag_by == "case":
                splits = merged_by_case(splits)
            if self.loading.limit_bags is not None:
                labels = splits.bags.labels[splits.train]
                at_least("loading.limit_bags", self.loading.limit_bags, len(splits.bags.class_names))
                splits = splits._replace(train=splits.train[classes_in_turn(labels, self.loading.limit_bags)])
            self.splits = splits
        device = None if self.trainer is None else self.trainer.strategy.root_device
        if device is not None and self.bags.nbytes <= self.loading.device_bytes(device):
            self.splits = self.splits._replace(bags=self.bags.to(device))

    @property
    def bags(self) -> Bags:
        """All bags; loaded when they are first asked for."""
        if not hasattr(self, "splits"):
            self.setup()
        return self.splits.bags

    @property
    def reported_cases(self) -> list[str] | None:
        """Case of each bag where cases are reported; None where bags alone are."""
        if self.report_by == "slide":
            return None
        return self.bags.bag_ids if self.bags.case_ids is None else self.bags.case_ids

    @property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]
        return self.bags.class_names

    @property
    def model_inputs(self) -> dict[str, Any]:
        return {"instance_shape": list(self.bags.instance_shape), "num_classes": len(self.class_names)}

    def fingerprint(self) -> str:
        return bags_fingerprint(self.splits)

    def counts(self) -> dict[str, int]:
        return dict(zip(("train", "val", "test"), map(len, self.splits[1:]), strict=True))

    def split_rows(self) -> list[dict[str, str]]:
        return split_table(self.splits)

    def _dealt(self, batch: Callable[..., Any]) -> Callable[[Tensor], Any]:
        """What makes training batches, with this rank's share of each."""
        rank, ranks = self._shard()
        return partial(batch, rank=rank, ranks=ranks)

    def _shard(self) -> tuple[int, int]:
        """(rank, number of ranks) of this process."""
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)


class BagDataModule(SplitDataModule):
    """Serves packed batches of bags."""

    kind = "bags"

    def train_dataloader(self) -> InTurn:
        """The views of the training bags that the method asks for, one after the other in each epoch."""
        trainer = self.trainer
        assert trainer is not None
        views = getattr(trainer.lightning_module, "train_views", ("bags",))
        of_view = {"bags": self.bag_loader, "instances": self.instance_loader, "more_bags": self.more_bags_loader}
        loaders = [of_view[view]() for view in views]
        return InTurn(loaders, limit=self.loading.limit_batches, epoch=lambda: trainer.current_epoch)

    def bag_loader(self) -> DataLoader:
        return self._loader(self._dealt(partial(self.bags.batch, coords=False)), BagSampler(**self._bag_order()))

    def more_bags_loader(self) -> DataLoader:
        """As many more batches of bags as there are batches of instances."""
        steps = len(self.instance_loader().sampler)  # type: ignore[arg-type]
        return self._loader(self._dealt(partial(self.bags.batch, coords=False)), MoreBags(steps, **self._bag_order()))

    def instance_loader(self) -> DataLoader:
        step, seed = self.loading.instances_per_step, self._order_seed()
        instances = self.bags.instances_of(self.splits.train)
        sampler = InstanceSampler(instances, step, seed=seed)
        if self.loading.instance_order == "by_slide":
            sampler = InstancesBySlide(instances, step, self.bags.sizes[self.splits.train], seed=seed)
        return self._loader(self._dealt(self.bags.instance_batch), sampler)

    def val_dataloader(self) -> DataLoader:
        return self._eval_loader(self.splits.val)

    def test_dataloader(self) -> DataLoader:
        return self._eval_loader(self.splits.test)

    def _eval_loader(self, bag_indices: Tensor) -> DataLoader:
        self.check_processes(self._shard()[1])
        return self.whole_bags(bag_indices)

    def whole_bags(self, bag_indices: Tensor, dealt: bool = True) -> DataLoader:
        """This rank's share of the given bags (B,), each once, packed as evaluation wants them; B >= ranks.

        Not `dealt`, it is all of them.
        """
        rank, world_size = self._shard() if dealt else (0, 1)
        share = bag_indices[equal_shares(self.bags.sizes[bag_indices], world_size)[rank]]
        budget = self.loading.eval_instances_per_step
        sampler = BagSampler(self.bags.sizes, share, len(share), budget, shuffle=False)
        return self._loader(self.bags.batch, sampler)

    def _loader(self, fetch: Callable[[Tensor], Any], sampler: EpochSampler) -> DataLoader:
        if self.loading.balanced_bags and isinstance(sampler, BagSampler) and sampler.shuffle:
            sampler.labels = self.bags.labels
        lazy = not isinstance(self.bags.instances, Tensor)
        workers = self.loading.num_workers if lazy else 0
        return DataLoader(
            IndexedView(fetch),
            sampler=sampler,
            batch_size=None,
            num_workers=workers,
            generator=torch.Generator(),  # else starting an iterator would draw from the generator of the epoch
            persistent_workers=workers > 0,
            pin_memory=workers > 0 and torch.cuda.is_available(),
        )

    def _bag_order(self) -> dict[str, Any]:
        """Settings of a sampler of training bags."""
        return {
            "sizes": self.bags.sizes,
            "bag_indices": self.splits.train,
            "bags_per_step": self.loading.bags_per_step,
            "max_instances": self.loading.max_instances_per_step,
            "seed": self._order_seed(),
        }

    def _order_seed(self) -> int:
        """Seed of the order of bags and instances: the run's, so that seeds differ in it; the data's without a run."""
        return self.seed if self.trainer is None else getattr(self.trainer.lightning_module, "seed", self.seed)


def classes_in_turn(labels: Tensor, count: int) -> Tensor:
    """Positions of the first `count` of labels (M,), one of each class after the other for as long as there are any."""
    turn = torch.zeros_like(labels)
    for label in labels.unique():
        of_class = labels == label
        turn[of_class] = torch.arange(int(of_class.sum()))
    order = torch.argsort(turn * (int(labels.max()) + 1) + labels)
    return order[:count].sort().values
