"""Packed bags: B >= 1 bags laid end to end, without padding and without masks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from kd_mil.core.checks import check_cells
from kd_mil.core.errors import UserError
from kd_mil.core.machine.shares import Share, dealt
from kd_mil.data.batches import BagBatch, InstanceBatch
from kd_mil.data.single_bags import Bag, coords_of, instance_labels_of, instances_of

SAMPLE_VALUES = 2**27
"""Numbers in a sample of instances: half a GiB in single precision, 170 tiles of 512 pixels."""


class LazyInstances(Protocol):
    """Instances that stay in files and are read by position; the alternative to one big tensor."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    def __getitem__(self, positions: Tensor) -> Tensor:
        """Read the instances at `positions` (M,) int64, in that order."""
        ...


class LazyPositions(Protocol):
    """Positions of instances that are read from files when they are needed."""

    def __getitem__(self, positions: Tensor) -> Tensor:
        """(M, 2) int64 level-0 pixels of the instances at `positions` (M,) int64, in that order."""
        ...


@dataclass(frozen=True)
class Bags:
    """All bags of a data set, end to end: bag b owns `sizes[b]` consecutive instances.

    The position of an instance here is its `instance_id`.

    Raises:
        UserError: an empty bag, a label outside the classes, a repeated bag id, tables that disagree in length, or a
            name that does harm in a table.
    """

    instances: Tensor | LazyInstances
    """(N, ...) uint8 pixels, float16/float32 features, or a reader of them."""
    sizes: Tensor
    """(B,) int64."""
    labels: Tensor
    """(B,) int64 in [0, len(class_names))."""
    bag_ids: list[str]
    instance_labels: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    """(N,) integers, -1 = unknown; empty means all unknown. Kept as int8 where there are fewer than 128 classes."""
    coords: Tensor | LazyPositions | None = None
    """(N, 2) level-0 pixels, kept as int32 where they are below 2**31, or a reader of them."""
    case_ids: list[str] | None = None
    """Patient or case of each bag; None = every bag is a case of its own."""
    class_names: tuple[str, ...] = ("negative", "positive")
    bag_of_instance: Tensor = field(init=False, repr=False)
    """(N,) int32."""

    def __post_init__(self) -> None:
        if self.instance_labels.numel() == 0:
            object.__setattr__(self, "instance_labels", torch.full((int(self.sizes.sum()),), -1))
        self._check()
        object.__setattr__(self, "instance_labels", narrowed(self.instance_labels, (torch.int8, torch.int32)))
        if isinstance(self.coords, Tensor):
            object.__setattr__(self, "coords", narrowed(self.coords, (torch.int32,)))
        owners = torch.arange(len(self.sizes), device=self.sizes.device, dtype=torch.int32)
        object.__setattr__(self, "bag_of_instance", owners.repeat_interleave(self.sizes))

    @classmethod
    def from_list(
        cls, bags: Sequence[Bag | tuple[Any, ...]], class_names: Sequence[str] = ("negative", "positive")
    ) -> "Bags":
        """Bags in memory, end to end: `Bags.from_list([(features, label), ...])`.

        Args:
            bags: `Bag`, or tuples that begin like one: instances (N, ...) and label.
            class_names: of the labels, the negative class first.

        Raises:
            UserError: no bags, instances of different kinds, features that are not finite, labels or coordinates that
                are not one for each instance, coordinates of some bags only, or what `Bags` refuses.

        Examples:
            >>> bags = Bags.from_list([(torch.randn(20, 16), 0), (torch.randn(30, 16), 1)], ["normal", "tumour"])
            >>> len(bags), bags.sizes.tolist(), tuple(bags.instances.shape)
            (2, [20, 30], (50, 16))
        """
        single = [Bag(*bag) for bag in bags]
        ids = [str(number) if bag.bag_id is None else bag.bag_id for number, bag in enumerate(single)]
        return cls(
            instances=torch.cat(instances_of(single, ids)),
            sizes=torch.tensor([len(bag.instances) for bag in single]),
            labels=torch.tensor([int(bag.label) for bag in single]),
            bag_ids=ids,
            instance_labels=torch.cat([instance_labels_of(*pair) for pair in zip(single, ids, strict=True)]),
            coords=coords_of(single, ids),
            case_ids=[bag.case_id or name for bag, name in zip(single, ids, strict=True)],
            class_names=tuple(class_names),
        )

    def _check(self) -> None:
        if len(self.class_names) < 2:
            raise UserError(
                f"all bags have the one class {self.class_names[0]!r}: a negative and a positive one are needed"
            )
        count, total = len(self.bag_ids), int(self.sizes.sum())
        lengths = {"sizes": len(self.sizes), "labels": len(self.labels)}
        lengths |= {} if self.case_ids is None else {"case_ids": len(self.case_ids)}
        for name, length in lengths.items():
            if length != count:
                raise UserError(f"{count} bag ids but {length} {name}: give one per bag")
        if total != self.instances.shape[0] or total != len(self.instance_labels):
            raise UserError(
                f"bag sizes add up to {total}, but there are {self.instances.shape[0]} instances "
                f"and {len(self.instance_labels)} instance labels"
            )
        if isinstance(self.coords, Tensor) and tuple(self.coords.shape) != (total, 2):
            raise UserError(
                f"{total} instances, but coords of shape {tuple(self.coords.shape)}: give one (x, y) for each"
            )
        for bag in (self.sizes < 1).nonzero().flatten().tolist():
            raise UserError(f"bag {self.bag_ids[bag]!r} is empty: remove it or give it instances")
        outside = (self.labels < 0) | (self.labels >= len(self.class_names))
        for bag in outside.nonzero().flatten().tolist():
            raise UserError(
                f"bag {self.bag_ids[bag]!r} has label {int(self.labels[bag])}, "
                f"outside the {len(self.class_names)} classes {list(self.class_names)}"
            )
        if len(set(self.bag_ids)) != count:
            repeated = next(name for name in self.bag_ids if self.bag_ids.count(name) > 1)
            raise UserError(f"bag id {repeated!r} occurs more than once: ids must be unique")
        check_cells("the data", {"bag id": self.bag_ids, "case_id": self.case_ids or (), "class": self.class_names})

    def __len__(self) -> int:
        return len(self.bag_ids)

    @property
    def starts(self) -> Tensor:
        """(B,) position of the first instance of each bag."""
        return self.sizes.cumsum(0) - self.sizes

    @property
    def instance_shape(self) -> tuple[int, ...]:
        """Shape of one instance: (C, H, W) or (D,)."""
        return tuple(self.instances.shape[1:])

    @property
    def device(self) -> torch.device:
        return self.instances.device if isinstance(self.instances, Tensor) else torch.device("cpu")

    @property
    def nbytes(self) -> int:
        """Bytes of all instances, whether they are in memory or not."""
        shape = self.instances.shape
        return torch.Size(shape).numel() * torch.empty(0, dtype=self.instances.dtype).element_size()

    def instances_of(self, bag_indices: Tensor) -> Tensor:
        """Positions (N,) of all instances of the given bags (B,), bag after bag."""
        sizes, starts = self.sizes[bag_indices], self.starts[bag_indices]
        shift = starts - (sizes.cumsum(0) - sizes)
        return shift.repeat_interleave(sizes) + torch.arange(int(sizes.sum()), device=sizes.device)

    def batch(self, bag_indices: Tensor, rank: int = 0, ranks: int = 1, coords: bool = True) -> BagBatch:
        """Pack the given bags (B,) int64, with a rank's share of their instances; no positions without `coords`.

        The index tensors follow the instances to their device.
        """
        positions = self.instances_of(bag_indices)
        device, share = self.device, dealt(len(positions), rank, ranks)
        placed = None if self.coords is None or not coords else self.coords[positions].to(device, torch.long)
        return BagBatch(
            instances=self._read(positions, share),
            sizes=self.sizes[bag_indices].to(device),
            labels=self.labels[bag_indices].to(device),
            instance_labels=self.instance_labels[positions].to(device, torch.long),
            instance_ids=positions.to(device),
            coords=placed,
            bag_indices=bag_indices.to(device),
            bag_ids=[self.bag_ids[index] for index in bag_indices.tolist()],
            share=share,
        )

    def instance_batch(self, positions: Tensor, rank: int = 0, ranks: int = 1) -> InstanceBatch:
        """Single instances (M,) int64 from any bags, a rank's share of them."""
        device, share = self.device, dealt(len(positions), rank, ranks)
        owners = self.bag_of_instance[positions].long()
        return InstanceBatch(
            instances=self._read(positions, share),
            labels=self.labels[owners].to(device),
            instance_labels=self.instance_labels[positions].to(device, torch.long),
            instance_ids=positions.to(device),
            bag_indices=owners.to(device),
            share=share,
        )

    def _read(self, positions: Tensor, share: Share | None) -> Tensor:
        own = positions if share is None else share.own(positions)
        return self.instances[own.to(self.device)]

    def sample(self, positions: Tensor, most: int) -> Tensor:
        """At most `most` of the instances at positions (N,) int64, always the same ones; fewer where they are large.

        For statistics of pixels: thousands of large tiles or images would not fit in memory.
        """
        count = max(1, min(most, SAMPLE_VALUES // math.prod(self.instance_shape)))
        order = torch.randperm(len(positions), generator=torch.Generator().manual_seed(0))
        return self.instance_batch(positions[order[:count]].sort().values).instances

    def to(self, device: torch.device | str) -> "Bags":
        """Move the instances; tables stay on the CPU, where batches are planned. Lazy instances stay in their files."""
        return replace(self, instances=self.instances.to(device)) if isinstance(self.instances, Tensor) else self


def narrowed(values: Tensor, types: Sequence[torch.dtype]) -> Tensor:
    """Integers in the first of the narrower types that holds all of them; as they are, where none does."""
    if values.is_floating_point() or not values.numel():
        return values
    low, high = values.aminmax()
    fit = [kind for kind in types if torch.iinfo(kind).min <= low and high <= torch.iinfo(kind).max]
    return values.to(fit[0]) if fit else values


class BagSplits(NamedTuple):
    """A data set and its three disjoint parts, as bag positions."""

    bags: Bags
    train: Tensor
    val: Tensor
    test: Tensor
