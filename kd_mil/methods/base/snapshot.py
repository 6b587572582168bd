"""The best weights so far, as part of a checkpoint."""

import copy
import math

import torch
from torch import Tensor, nn


class Snapshot(nn.Module):
    """The weights of the best network so far and its score; part of the checkpoint, never trained.

    Args:
        network: of the architecture to keep.
    """

    score: Tensor
    """() float64, higher is better; NaN = nothing kept yet."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).requires_grad_(False)
        self.register_buffer("score", torch.tensor(math.nan, dtype=torch.float64))

    @property
    def empty(self) -> bool:
        return bool(self.score.isnan())

    def offer(self, network: nn.Module, score: float) -> bool:
        """Keep the network if it is the first, or better than the one kept; an undefined score keeps nothing."""
        if math.isnan(score) or (not self.empty and score <= float(self.score)):
            return False
        self.network.load_state_dict(network.state_dict())
        self.score.fill_(score)
        return True

    def forget(self) -> None:
        """Start anew; the weights stay until a network is offered."""
        self.score.fill_(math.nan)
