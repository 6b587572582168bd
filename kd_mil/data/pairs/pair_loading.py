"""Order of paired images, and the loader that changes with the method's phase."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from kd_mil.data.batches import PairBatch
from kd_mil.data.pairs.stack import ImageStack
from kd_mil.data.samplers import EpochSampler


@dataclass(frozen=True)
class PairView:
    """Makes batches of positions; travels to worker processes, which may start without a fork."""

    images: Mapping[str, ImageStack]
    """By resolution."""
    labels: Tensor
    resolutions: tuple[str, ...]
    """Those of `teacher` and `student` that the batch has."""
    labelled: bool = True
    """Whether it has labels."""

    def __call__(self, positions: Tensor) -> PairBatch:
        """The batch of the images at `positions` (B,)."""
        shown = {name: [self.images[name][index] for index in positions.tolist()] for name in self.resolutions}
        labels = self.labels[positions]
        hidden = labels if self.labelled else torch.full_like(labels, -1)
        return PairBatch(shown.get("teacher", []), shown.get("student", []), hidden, positions)


class ImageSampler(EpochSampler):
    """Random groups of image positions, every image once an epoch; all ranks take equal shares of every group.

    The last group holds the rest; images from the start of the epoch complete it to a multiple of the ranks.
    """

    def __init__(
        self, positions: Tensor, images_per_step: int, drop_last: bool, *, seed: int, rank: int, world_size: int
    ) -> None:
        super().__init__(seed, rank, world_size)
        self.positions, self.images_per_step, self.drop_last = positions, images_per_step, drop_last

    def __iter__(self) -> Iterator[Tensor]:
        order = self.shuffled(self.positions)
        together = self.images_per_step * self.world_size
        for start in range(0, len(self) * together, together):
            group = order[start : start + together]
            missing = -len(group) % self.world_size
            yield torch.cat([group, order.repeat(self.world_size)[:missing]])[self.rank :: self.world_size]

    def __len__(self) -> int:
        full, rest = divmod(len(self.positions), self.images_per_step * self.world_size)
        return full + (rest > 0 and not (self.drop_last and full))


class PhaseLoader:
    """The loader of the present phase, asked for when an epoch starts; its length may change, so it has none."""

    def __init__(
        self,
        loaders: dict[str, DataLoader],
        view: Callable[[], str],
        epoch: Callable[[], int],
        limit: int | None = None,
    ) -> None:
        self.loaders, self.view, self.epoch, self.limit = loaders, view, epoch, limit

    def __iter__(self) -> Iterator[PairBatch]:
        loader = self.loaders[self.view()]
        assert isinstance(loader.sampler, EpochSampler)
        loader.sampler.set_epoch(self.epoch())
        yield from islice(loader, self.limit)
