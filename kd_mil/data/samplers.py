"""Samplers that plan whole batches, and the loader that shows several views of the data in one epoch."""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, count, islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from kd_mil.core.errors import UserError

RUN, BAGS_AT_ONCE = 32, 64
"""Neighbours that are read at once, and bags that a batch `by_slide` is drawn from: of 256 instances, 8 runs."""


class IndexedView(Dataset):
    """A data set whose index is a whole batch of positions: no Python per sample."""

    def __init__(self, fetch: Callable[[Tensor], Any]) -> None:
        self.fetch = fetch

    def __getitem__(self, positions: Tensor) -> Any:
        return self.fetch(positions)


class EpochSampler(Sampler[Tensor]):
    """A sampler whose order is a function of (seed, epoch): all ranks plan the same steps, and deal out each."""

    def __init__(self, seed: int) -> None:
        self.seed, self.epoch = seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    labels: Tensor | None = None
    """Class of each item by its position in the data set, to draw all equally often; None: as they are."""

    def shuffled(self, items: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        if self.labels is not None:
            items = equally_frequent(items, self.labels[items], generator)
        return items[torch.randperm(len(items), generator=generator)]


class BagSampler(EpochSampler):
    """Batches of bag positions: at most `bags_per_step` bags and, where given, `max_instances` instances each."""

    def __init__(
        self,
        sizes: Tensor,
        bag_indices: Tensor,
        bags_per_step: int,
        max_instances: int | None = None,
        *,
        shuffle: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__(seed)
        self.sizes, self.bag_indices, self.shuffle = sizes, bag_indices, shuffle
        self.bags_per_step, self.max_instances = bags_per_step, max_instances

    def __iter__(self) -> Iterator[Tensor]:
        yield from self._batches(self.shuffled(self.bag_indices) if self.shuffle else self.bag_indices)

    def _batches(self, order: Tensor) -> list[Tensor]:
        if self.max_instances is None:
            return list(order.split(self.bags_per_step))
        lengths, held, count = [], 0, 0
        for size in self.sizes[order].tolist():
            if count == self.bags_per_step or (count and held + size > self.max_instances):
                lengths.append(count)
                held, count = 0, 0
            held, count = held + size, count + 1
        return list(order.split([*lengths, count]))

    def __len__(self) -> int:
        """Steps per epoch.

        Raises:
            TypeError: the number depends on the order, because a shuffled token budget closes batches early.
        """
        if self.max_instances is not None and self.shuffle:
            raise TypeError("a token budget makes the number of steps vary between epochs")
        return len(self._batches(self.bag_indices))


class MoreBags(BagSampler):
    """A given number of further batches of bags: passes in orders of their own, the last one cut short.

    Args:
        steps: batches of one epoch.
        *settings, **options: as in `BagSampler`.
    """

    def __init__(self, steps: int, *settings: Any, **options: Any) -> None:
        super().__init__(*settings, **options)
        self.steps, self.first_seed = steps, self.seed

    def __iter__(self) -> Iterator[Tensor]:
        return islice(chain.from_iterable(map(self._of_pass, count(1))), self.steps)

    def _of_pass(self, number: int) -> Iterator[Tensor]:
        self.seed = self.first_seed + 1 + number
        return super().__iter__()

    def __len__(self) -> int:
        return self.steps


class InstanceSampler(EpochSampler):
    """Random batches of instance positions.

    The last batch holds the rest, unless that is a single instance: batch normalisation needs two.

    Raises:
        UserError: fewer than two instances in all.
    """

    def __init__(self, instances: Tensor, instances_per_step: int, *, seed: int = 0) -> None:
        super().__init__(seed + 1)
        self.instances, self.instances_per_step = instances, instances_per_step
        if len(self) == 0:
            raise UserError(f"{len(instances)} training instances: two at least are needed")

    def __iter__(self) -> Iterator[Tensor]:
        batches = self.shuffled(self.instances).split(self.instances_per_step)
        return iter(batches[: len(self)])

    def __len__(self) -> int:
        full, rest = divmod(len(self.instances), self.instances_per_step)
        return full + (rest >= 2)


class InstancesBySlide(InstanceSampler):
    """Random batches that files can serve: instances next to each other, out of some bags at a time.

    Bags come in a random order, `BAGS_AT_ONCE` at a time; of these, runs of `RUN` neighbours are shuffled. Every
    instance comes once in an epoch, as with `InstanceSampler`, and the order is a function of (seed, epoch) alone.

    Args:
        instances: (N,) positions, bag after bag.
        instances_per_step: of a batch.
        sizes: (B,) int64 of the bags.
        seed: of the order.
    """

    def __init__(self, instances: Tensor, instances_per_step: int, sizes: Tensor, *, seed: int = 0) -> None:
        super().__init__(instances, instances_per_step, seed=seed)
        self.sizes = sizes

    def shuffled(self, items: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        turn = torch.randperm(len(self.sizes), generator=generator)
        counts = (self.sizes + RUN - 1) // RUN
        bags = torch.arange(len(self.sizes)).repeat_interleave(counts)
        first = (torch.arange(len(bags)) - (counts.cumsum(0) - counts)[bags]) * RUN
        lengths = (self.sizes[bags] - first).clamp_max(RUN)
        mixed = torch.randperm(len(bags), generator=generator)
        order = mixed[(turn[bags[mixed]] // BAGS_AT_ONCE).argsort(stable=True)]
        starts, lengths = ((self.sizes.cumsum(0) - self.sizes)[bags] + first)[order], lengths[order]
        shift = starts - (lengths.cumsum(0) - lengths)
        return items[shift.repeat_interleave(lengths) + torch.arange(len(items))]


class InTurn:
    """Several loaders one after the other within one epoch: WENO's bags first, then the instances.

    Lightning refuses its own sequential mode for training and does not look inside for samplers, so the epoch is
    asked for when the iteration starts.
    """

    def __init__(self, loaders: Iterable[DataLoader], epoch: Callable[[], int], limit: int | None = None) -> None:
        self.loaders, self.epoch, self.limit = list(loaders), epoch, limit

    def __iter__(self) -> Iterator[Any]:
        for loader in self.loaders:
            assert isinstance(loader.sampler, EpochSampler)
            loader.sampler.set_epoch(self.epoch())
        yield from chain.from_iterable(islice(loader, self.limit) for loader in self.loaders)

    def __len__(self) -> int:
        lengths = [len(loader) for loader in self.loaders]
        return sum(lengths if self.limit is None else [min(length, self.limit) for length in lengths])


def equally_frequent(items: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    """As many items (M,), each class as often as the others (up to one): rare ones repeat, of frequent ones some rest.

    A class that is drawn more often than it has items is drawn in whole passes, the last one cut short.
    """
    classes = labels.unique().tolist()
    drawn = []
    for number, label in enumerate(classes):
        own = items[labels == label]
        quota = len(items) // len(classes) + (number < len(items) % len(classes))
        passes = [own[torch.randperm(len(own), generator=generator)] for _ in range(-(-quota // len(own)))]
        drawn.append(torch.cat(passes)[:quota] if passes else own[:0])
    return torch.cat(drawn)


def equal_shares(sizes: Tensor, shares: int) -> list[Tensor]:
    """Positions in `sizes` (B,), dealt out so that the sums of the shares are about equal; each in ascending order.

    The largest goes to the smallest share so far, and so on: no share exceeds 4/3 of the best possible (Graham 1969).
    """
    held, dealt = [0] * shares, [[] for _ in range(shares)]  # type: ignore[var-annotated]
    for position in torch.argsort(sizes, descending=True, stable=True).tolist():
        least = held.index(min(held))
        held[least] += int(sizes[position])
        dealt[least].append(position)
    return [torch.tensor(sorted(positions), dtype=torch.long) for positions in dealt]
