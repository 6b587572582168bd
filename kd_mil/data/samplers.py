"""Samplers that plan whole batches, and the loader that shows several views of the data in one epoch."""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from kd_mil.core.errors import UserError


class IndexedView(Dataset):
    """A data set whose index is a whole batch of positions: no Python per sample."""

    def __init__(self, fetch: Callable[[Tensor], Any]) -> None:
        self.fetch = fetch

    def __getitem__(self, positions: Tensor) -> Any:
        return self.fetch(positions)


class EpochSampler(Sampler[Tensor]):
    """A sampler whose order is a function of (seed, epoch), equal on all ranks before it is dealt out."""

    def __init__(self, seed: int, rank: int, world_size: int) -> None:
        self.seed, self.rank, self.world_size, self.epoch = seed, rank, world_size, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def shuffled(self, items: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        return items[torch.randperm(len(items), generator=generator)]


class BagSampler(EpochSampler):
    """Batches of bag positions: at most `bags_per_step` bags and, where given, `max_instances` instances each.

    Batches are dealt to the ranks in turn. The last round is completed with batches from the start of the epoch, so
    that every rank takes the same number of steps.

    With `balance`, each round holds batches of about equal numbers of instances: ranks wait for each other at every
    step, and the largest batch of a round is what it costs. Batches are sorted by size within stretches of
    `STRETCH` rounds, and the rounds shuffled again; which bags share an update is then a little less random.
    """

    STRETCH = 16

    def __init__(
        self,
        sizes: Tensor,
        bag_indices: Tensor,
        bags_per_step: int,
        max_instances: int | None = None,
        *,
        shuffle: bool = True,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        balance: bool = False,
    ) -> None:
        super().__init__(seed, rank, world_size)
        self.balance = balance and shuffle and world_size > 1
        self.sizes, self.bag_indices, self.shuffle = sizes, bag_indices, shuffle
        self.bags_per_step, self.max_instances = bags_per_step, max_instances

    def __iter__(self) -> Iterator[Tensor]:
        order = self.shuffled(self.bag_indices) if self.shuffle else self.bag_indices
        batches = self._batches(order)
        rounds = -(-len(batches) // self.world_size)
        dealt = [batches[index % len(batches)] for index in range(rounds * self.world_size)]
        yield from (self._balanced(dealt) if self.balance else dealt)[self.rank :: self.world_size]

    def _balanced(self, batches: list[Tensor]) -> list[Tensor]:
        """The same whole rounds of batches, rearranged so that those of one round are alike in size."""
        stretch = self.STRETCH * self.world_size
        rounds: list[list[Tensor]] = []
        for start in range(0, len(batches), stretch):
            alike = sorted(batches[start : start + stretch], key=lambda batch: int(self.sizes[batch].sum()))
            rounds += [alike[first : first + self.world_size] for first in range(0, len(alike), self.world_size)]
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(len(rounds), generator=generator).tolist()
        turned = [
            rounds[index][turn % self.world_size :] + rounds[index][: turn % self.world_size]
            for turn, index in enumerate(order)
        ]
        return [batch for batches_of_round in turned for batch in batches_of_round]

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
        count = len(self._batches(self.bag_indices))
        return -(-count // self.world_size)


class InstanceSampler(EpochSampler):
    """Random batches of instance positions; every rank takes the same number of steps, of the same size.

    The last batch holds the rest, unless that is fewer than two instances a rank: batch normalisation needs two.

    Raises:
        UserError: fewer than two instances a rank in all.
    """

    def __init__(
        self, instances: Tensor, instances_per_step: int, *, seed: int = 0, rank: int = 0, world_size: int = 1
    ) -> None:
        super().__init__(seed + 1, rank, world_size)
        self.instances, self.instances_per_step = instances, instances_per_step
        if len(self) == 0:
            raise UserError(
                f"{len(instances)} training instances for {world_size} process(es): each needs two at least"
            )

    def __iter__(self) -> Iterator[Tensor]:
        order = self.shuffled(self.instances)
        together = self.instances_per_step * self.world_size
        for start in range(0, len(self) * together, together):
            batch = order[start : start + together]
            equal = len(batch) - len(batch) % self.world_size
            yield batch[:equal][self.rank :: self.world_size]

    def __len__(self) -> int:
        full, rest = divmod(len(self.instances), self.instances_per_step * self.world_size)
        return full + (rest >= 2 * self.world_size)


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
