"""Order of paired images, and the loader that changes with the method's phase."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from kd_mil.core.machine.shares import WHOLE, dealt
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
    rank: int = 0
    ranks: int = 1
    """Whose share of the images it has."""

    def __call__(self, positions: Tensor) -> PairBatch:
        """The batch of the images at `positions` (B,)."""
        share = dealt(len(positions), self.rank, self.ranks)
        own = (share or WHOLE).own(positions).tolist()
        shown = {name: [self.images[name][index] for index in own] for name in self.resolutions}
        labels = self.labels[positions]
        hidden = labels if self.labelled else torch.full_like(labels, -1)
        return PairBatch(shown.get("teacher", []), shown.get("student", []), hidden, positions, share)


class ImageSampler(EpochSampler):
    """Random groups of image positions, every image once an epoch; the last group holds the rest."""

    def __init__(self, positions: Tensor, images_per_step: int, drop_last: bool, *, seed: int) -> None:
        super().__init__(seed)
        self.positions, self.images_per_step, self.drop_last = positions, images_per_step, drop_last

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.shuffled(self.positions).split(self.images_per_step)[: len(self)])

    def __len__(self) -> int:
        full, rest = divmod(len(self.positions), self.images_per_step)
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
