"""Running averages of weights: one that evaluates in their place, and twins that follow a network as it learns."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from kd_mil.core.checks import share


class WeightAverage(nn.Module):
    """Exponential moving average of networks, or the plain mean of all weights so far while that is shorter.

    After n updates the decay is min(decay, 1 - 1/n), so that the first weights are soon forgotten. Floating point
    buffers, statistics of BatchNorm, are averaged like weights. All of it is part of every checkpoint.

    Args:
        parts: networks to average; they are copied.
        decay: in [0, 1), such as 0.995.

    Raises:
        UserError: a decay outside [0, 1).
    """

    def __init__(self, parts: Sequence[nn.Module], decay: float) -> None:
        super().__init__()
        share("method.average", decay, one=False)
        self.parts = nn.ModuleList(copy.deepcopy(part) for part in parts).requires_grad_(False)
        self.decay, self.updates = decay, 0

    @torch.no_grad()
    def update(self, parts: Sequence[nn.Module]) -> None:
        """Move the average towards the present weights."""
        self.updates += 1
        averages, present = self.parts.state_dict().values(), nn.ModuleList(parts).state_dict().values()
        pairs = list(zip(averages, present, strict=True))
        real = [pair for pair in pairs if pair[0].is_floating_point()]
        weight = 1 - min(self.decay, 1 - 1 / self.updates)
        torch._foreach_lerp_([kept for kept, _ in real], [now for _, now in real], weight)
        for kept, now in pairs:
            if not kept.is_floating_point():
                kept.copy_(now)

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.updates)

    def set_extra_state(self, state: Any) -> None:
        self.updates = int(state)


@torch.no_grad()
def follow(twin: nn.Module, parts: Sequence[nn.Module], momentum: float) -> None:
    """Move a twin of some networks towards them; statistics that are no weights are copied.

    Args:
        twin: holds copies of the parts, in their order.
        parts: what it follows.
        momentum: weight of the twin as it was, in [0, 1].
    """
    present = nn.ModuleList(parts)
    get_ema_multi_avg_fn(momentum)(list(twin.parameters()), list(present.parameters()), None)
    for kept, now in zip(twin.buffers(), present.buffers(), strict=True):
        kept.copy_(now)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradient for a while, in the middle of training; every layer gets its own mode back."""
    modes = {layer: layer.training for layer in module.modules()}
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for layer, training in modes.items():
            layer.training = training
