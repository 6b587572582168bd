"""The network that a phase of training hands on: its best epoch so far, or its last one."""

import math
from typing import Literal

from torch import Tensor, nn

Select = Literal["best", "last"]


class Snapshot:
    """The best weights of a network so far; they live in the state of their owner, and so in every checkpoint.

    The owner has a copy of the network and a buffer () for its score; the buffer's first value, inf or NaN, stands for
    nothing kept yet.

    Args:
        owner: of both.
        weights, score: their names there.
        mode: `min` or `max`, which score is the better.
        select: the epoch that is kept: the `best`, or the `last` one offered.
    """

    def __init__(
        self,
        owner: nn.Module,
        weights: str = "best",
        score: str = "best_loss",
        mode: Literal["min", "max"] = "min",
        select: Select = "best",
    ) -> None:
        self._owner, self._weights, self._score = owner, weights, score
        self._mode, self._select, self._nothing = mode, select, float(self.score)

    @property
    def network(self) -> nn.Module:
        """The weights kept, never trained."""
        return self._owner.get_submodule(self._weights)

    @property
    def score(self) -> Tensor:
        """() of the network kept."""
        return self._owner.get_buffer(self._score)

    @property
    def empty(self) -> bool:
        return not bool(self.score.isfinite())

    def offer(self, network: nn.Module, score: float) -> bool:
        """Keep the network if it is the first, the better or, with `select=last`, the later one.

        A score that is not finite keeps nothing.
        """
        better = score < self.score if self._mode == "min" else score > self.score
        if not math.isfinite(score) or not (better or self.empty or self._select == "last"):
            return False
        self.network.load_state_dict(network.state_dict())
        self.score.fill_(score)
        return True

    def hand_on(self, network: nn.Module, trained: nn.Module) -> None:
        """Give a network the weights kept, if any, and start anew for the next phase.

        With `select=last` those of `trained`, the network of the phase that ends: its last epoch need not have been
        validated, or have a score.
        """
        if self._select == "last":
            network.load_state_dict(trained.state_dict())
        elif not self.empty:
            network.load_state_dict(self.network.state_dict())
        self.forget()

    def forget(self) -> None:
        """Start anew; the weights stay until a network is offered."""
        self.score.fill_(self._nothing)
