"""Networks that IFKD keeps beside the two it works with, in the state of the method and so in every checkpoint."""

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn


class BestSoFar(nn.Module):
    """Where a checkpoint keeps the best network of a stage, and its score: higher is better, NaN before the first."""

    score: Tensor

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = frozen_copy(network)
        self.register_buffer("score", torch.tensor(math.nan, dtype=torch.float64))


def frozen_copy(network: nn.Module) -> nn.Module:
    """A copy with weights of its own, never trained."""
    return copy.deepcopy(network).requires_grad_(False)


def complete_earlier_state(method: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Give a state of before IFKD kept its first teacher what it lacks, as not kept: that role then has no maps."""
    if f"{prefix}first_kept" in state or f"{prefix}distilling" not in state:
        return
    own = method.state_dict(prefix=prefix)
    first = f"{prefix}first_teacher."
    state |= {name: value for name, value in own.items() if name.startswith(first)}
    state[f"{prefix}first_kept"], state[f"{prefix}fruitless"] = torch.tensor(False), torch.tensor(0)
    chosen = f"{prefix}operating_points"
    state[chosen] = torch.cat([own[chosen][:1], state[chosen]])
