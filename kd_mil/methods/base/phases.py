"""The phases of training: what an epoch is for, and how many epochs a run takes."""

from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate
from typing import NamedTuple

from kd_mil.core.errors import UserError


class Phase(NamedTuple):
    """A stretch of epochs with one aim."""

    name: str
    epochs: int | None = None
    """None: until the run ends; possible for the last phase alone."""
    setting: str | None = None
    """What the user sets its length with, such as `method.teacher_epochs`."""


class Phases:
    """Phases that follow each other from epoch 0 on: `Phases(Phase("teacher", 30), Phase("student"))`.

    A phase may come several times under one name, a round each. Phases without epochs are left out.

    Raises:
        ValueError: no phase is left, or one that is not the last has no end.
    """

    def __init__(self, *phases: Phase) -> None:
        self._phases = tuple(phase for phase in phases if phase.epochs != 0)
        if not self._phases or any(phase.epochs is None for phase in self._phases[:-1]):
            raise ValueError(f"{phases}: phases need epochs, and only the last may be without an end")
        self.starts = [0, *accumulate(phase.epochs for phase in self._phases[:-1] if phase.epochs)]
        """First epoch of each phase, ascending from 0."""

    def __iter__(self) -> Iterator[Phase]:
        return iter(self._phases)

    @property
    def names(self) -> list[str]:
        """Of each phase, in order; one that comes several times is named each time."""
        return [phase.name for phase in self]

    @property
    def undivided(self) -> bool:
        """Whether the whole run is one phase, of whatever length."""
        return self._phases[0].epochs is None

    @property
    def total(self) -> int | None:
        """Epochs of all phases; None if the last has no end of its own."""
        last = self._phases[-1].epochs
        return None if last is None else self.starts[-1] + last

    def name(self, epoch: int) -> str:
        """Of the phase that an epoch (from 0) lies in; after the end, of the last."""
        return self._phases[self._index(epoch)].name

    def round(self, epoch: int) -> int:
        """How many phases of the same name came before that of an epoch."""
        index = self._index(epoch)
        return self.names[:index].count(self.names[index])

    def begins(self, epoch: int) -> bool:
        """Whether a phase after the first begins with an epoch."""
        return epoch in self.starts[1:]

    def progress(self, epoch: int, run_epochs: int) -> float:
        """Share of an epoch's phase that is over when the epoch starts, in [0, 1), in a run of that many epochs."""
        index = self._index(epoch)
        begin, end = self.starts[index], [*self.starts, run_epochs][index + 1]
        return (epoch - begin) / (end - begin)

    def run_epochs(self, asked: int | None) -> int | None:
        """Epochs of a run, from what `trainer.max_epochs` asks for; None and -1 ask for all.

        Raises:
            UserError: the run would end before the last phase begins, or continue after it has ended.
        """
        if asked in (None, -1):
            return asked if self.total is None else self.total
        settings = ", ".join(dict.fromkeys(phase.setting for phase in self if phase.setting))
        if asked <= self.starts[-1] > 0:
            raise UserError(
                f"trainer.max_epochs={asked} ends before the {self.names[-1]} phase begins: it needs more than "
                f"{self.starts[-1]}, or other {settings}"
            )
        if self.total is not None and asked > self.total:
            raise UserError(
                f"trainer.max_epochs={asked}, but the phases take {self.total}: set {settings} and leave "
                "trainer.max_epochs at -1"
            )
        return asked

    def each_of(self, epochs: int) -> "Phases":
        """The same phases with that many epochs each."""
        return Phases(*(phase._replace(epochs=epochs) for phase in self))

    def _index(self, epoch: int) -> int:
        return bisect_right(self.starts, epoch) - 1


UNDIVIDED = Phases(Phase("training"))
