"""Multi-layer perceptrons on instance features: the student of WENO, and the layers other heads are made of."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from kd_mil.core.checks import share
from kd_mil.core.errors import UserError
from kd_mil.models.segments import at_least_float32

Initialisation = Literal["default", "normal_0.01"]


class InstanceHead(nn.Sequential):
    """Instance classifier (N, F) -> (N, C) logits: hidden layers with ReLU, then a linear layer.

    WENO's released student has two hidden layers of 4096, on images with dropout 0.5 before each of them.

    Args:
        in_features: F.
        num_classes: C.
        hidden: width of each hidden layer, none for a linear classifier.
        dropout: share of inputs of every hidden layer set to 0 while training.
        init: `default` of PyTorch, or the released `normal_0.01` (weights N(0, 0.01), biases 0).

    Raises:
        UserError: a width below 1 or dropout outside [0, 1).
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int = 2,
        hidden: Sequence[int] = (256,),
        dropout: float = 0.0,
        init: Initialisation = "default",
    ) -> None:
        width = hidden[-1] if hidden else in_features
        super().__init__(hidden_layers(in_features, hidden, dropout), LogitLayer(width, num_classes))
        initialise(self, init)


class LogitLayer(nn.Linear):
    """Linear layer in float32 even under autocast: bfloat16 logits would tie instances that differ."""

    def forward(self, input: Tensor) -> Tensor:
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(at_least_float32(input))


class Dropout(nn.Dropout):
    """Dropout that remembers what it dropped in one byte per value; PyTorch's takes four on a CPU."""

    def forward(self, input: Tensor) -> Tensor:
        return torch.native_dropout(input, self.p, True)[0] if self.training and self.p > 0 else input


def hidden_layers(in_features: int, hidden: Sequence[int], dropout: float = 0.0) -> nn.Sequential:
    """Linear layers with ReLU of the given widths, each with dropout on its inputs; empty for no widths.

    Raises:
        UserError: a width below 1 or dropout outside [0, 1).
    """
    if any(width < 1 for width in hidden):
        raise UserError(f"hidden={list(hidden)}: every hidden layer needs a width of at least 1")
    share("dropout", dropout, one=False)
    layers: list[nn.Module] = [Dropout(dropout)] if hidden and dropout else []
    for number, width in enumerate(hidden, start=1):
        layers.append(nn.Linear(in_features, width))
        # dropout commutes with ReLU; in this order ReLU can work in place and one activation less is kept
        layers += [Dropout(dropout)] if dropout and number < len(hidden) else []
        layers.append(nn.ReLU(inplace=True))
        in_features = width
    return nn.Sequential(*layers)


def initialise(module: nn.Module, init: Initialisation) -> None:
    """Set all linear layers in `module` as WENO's code does (`normal_0.01`), or leave PyTorch's `default`."""
    for layer in module.modules():
        if init == "normal_0.01" and isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)
