"""Encoders with the sizes of published bag classifiers of small patches."""

from collections.abc import Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn

from kd_mil.core.checks import share
from kd_mil.core.errors import UserError
from kd_mil.models.encoders.small import InstanceShape, image_shape, output_width
from kd_mil.models.heads import Dropout


class ConvStack(nn.Sequential):
    """Convolutions, each with ReLU and 2x2 max-pooling, then fully connected layers with ReLU.

    Thiagarajan et al. 2019 have 2 convolutions for colon and 5 for breast patches, then 3 fully connected layers, and
    give no widths. With convolutions (36, 4, 0), (48, 3, 0) and 2 layers of 512 it is the network of
    Sirinukunwattana et al. 2016 that Ilse et al. 2018 took over for the same colon patches.

    Args:
        instance_shape: (C, H, W).
        convolutions: (channels, kernel size, padding) of each.
        fully_connected: width of each layer after them, at least one.
        dropout: share of the outputs of each fully connected layer set to 0 while training.
        init: `he`, so that what tells images apart reaches the last layer (He et al. 2015), or PyTorch's `default`,
            whose weights are 2.4 times smaller; training then spends its first epochs on making them larger.

    Raises:
        UserError: instances that are no images or too small for the poolings, no layer, dropout outside [0, 1), or an
            unknown init.
    """

    def __init__(
        self,
        instance_shape: InstanceShape,
        convolutions: Sequence[Sequence[int]] = ((36, 4, 0), (48, 3, 0)),
        fully_connected: Sequence[int] = (512, 512, 512),
        dropout: float = 0.0,
        init: Literal["default", "he"] = "default",
    ) -> None:
        width, *sides = image_shape(instance_shape, "conv_stack")
        if not convolutions or not fully_connected:
            raise UserError("encoder: give at least one of encoder.convolutions and one of encoder.fully_connected")
        share("encoder.dropout", dropout, one=False)
        side, layers = min(sides), list[nn.Module]()
        for channels, kernel, padding in convolutions:
            side = (side + 2 * padding - kernel + 1) // 2
            if side < 1:
                raise UserError(f"images of {sides[0]}x{sides[1]} pixels vanish in encoder.convolutions: use fewer")
            # pooling before the ReLU gives the same values for a quarter of the work
            layers += [nn.Conv2d(width, channels, kernel, padding=padding), nn.MaxPool2d(2), nn.ReLU(inplace=True)]
            width = channels
        super().__init__(*layers, nn.Flatten())
        width = output_width(self, instance_shape)
        for out in fully_connected:
            self.extend([nn.Linear(width, out), nn.ReLU(inplace=True), *([Dropout(dropout)] if dropout else [])])
            width = out
        self.out_features = width
        if init == "he":
            self._initialise()

    def _initialise(self) -> None:
        for layer in self:
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(cast(Tensor, layer.bias))

    def forward(self, instances: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, out_features)."""
        # channels last: the same numbers, for two thirds of the time on a CPU
        return super().forward(instances.contiguous(memory_format=torch.channels_last))
