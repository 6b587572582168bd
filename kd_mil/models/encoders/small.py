"""Encoders: from float instances, images (N, C, H, W) in [0, 1] or vectors (N, D), to features (N, out_features)."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_mil.core.errors import UserError
from kd_mil.core.machine.dealing import rows_of_step

Norm = Literal["batch", "group", "none"]
InstanceShape = tuple[int, ...]


class AlexNetCifar(nn.Sequential):
    """The CIFAR-10 encoder of WENO's released code: five convolutions, three poolings; 1728 features at 32x32.

    Args:
        instance_shape: (C, H, W), at least 15 pixels a side.

    Raises:
        UserError: instances that are no images, or too small ones.
    """

    def __init__(self, instance_shape: InstanceShape) -> None:
        width, *_ = image_shape(instance_shape, "alexnet_cifar", smallest=15)
        layers: list[nn.Module] = []
        for out, pooled in ((96, True), (192, True), (384, False), (384, False), (192, True)):
            layers += [nn.Conv2d(width, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU(inplace=True)]
            layers += [nn.MaxPool2d(3, stride=2)] if pooled else []
            width = out
        super().__init__(*layers, nn.Flatten())
        self.out_features = output_width(self, instance_shape)


class LeNet5(nn.Sequential):
    """The encoder of ABMIL's released code (Ilse et al. 2018): two 5x5 convolutions with pooling, then 500 features.

    Args:
        instance_shape: (C, H, W), at least 16 pixels a side; 28x28 in the paper.

    Raises:
        UserError: instances that are no images, or too small ones.
    """

    out_features = 500

    def __init__(self, instance_shape: InstanceShape) -> None:
        channels, *_ = image_shape(instance_shape, "lenet5", smallest=16)
        first = [nn.Conv2d(channels, 20, 5), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
        trunk = nn.Sequential(*first, nn.Conv2d(20, 50, 5), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Flatten())
        width = output_width(trunk, instance_shape)
        super().__init__(*trunk, nn.Linear(width, self.out_features), nn.ReLU(inplace=True))


class SmallCNN(nn.Sequential):
    """A network for patches of 8 to 64 pixels: in each stage a 3x3 convolution, normalisation, pooling and ReLU.

    Pooling before the ReLU gives the values of the usual order for a quarter of the work.

    Args:
        instance_shape: (C, H, W), at least 8 pixels a side.
        channels: of each stage.
        hidden: width of a linear layer on the flattened last stage; None averages it over the image instead.
        norm: `group` (groups of 8 channels, each instance by itself), `batch` (with one bag a step, statistics of that
            bag) or `none`.

    Raises:
        UserError: instances that are no images or too small ones, an unknown norm, or channels it cannot work with.
    """

    def __init__(
        self,
        instance_shape: InstanceShape,
        channels: Sequence[int] = (16, 32, 64),
        hidden: int | None = 256,
        norm: Norm = "group",
    ) -> None:
        width, *sides = image_shape(instance_shape, "small_cnn", smallest=8)
        if not channels or min(channels) < 1:
            raise UserError(f"encoder.channels={list(channels)}: give the positive number of channels of each stage")
        layers: list[nn.Module] = []
        for stage, out in enumerate(channels):
            layers += [nn.Conv2d(width, out, 3, padding=1, bias=norm == "none"), *normalisation(norm, out)]
            # poolings stop before one pixel is left: batch statistics need more than one value
            layers += [nn.MaxPool2d(2)] if min(sides) >> stage >= 4 else []
            layers.append(nn.ReLU(inplace=True))
            width = out
        super().__init__(*layers, *([nn.AdaptiveAvgPool2d(1)] if hidden is None else []), nn.Flatten())
        self.out_features = width if hidden is None else hidden
        if hidden is not None:
            self.extend([nn.Linear(output_width(self, instance_shape), hidden), nn.ReLU(inplace=True)])


class FeatureProjector(nn.Sequential):
    """Linear layer with normalisation: the encoder of WENO's released code on extracted features.

    Args:
        instance_shape: (D,).
        out_features: width of the projection; 512 in the released code.
        norm: `batch` (released), `layer` (each instance by itself) or `none`.
        relu: rectify the projection (not in the released code).

    Raises:
        UserError: instances that are images.
    """

    def __init__(
        self,
        instance_shape: InstanceShape,
        out_features: int = 512,
        norm: Literal["batch", "layer", "none"] = "batch",
        relu: bool = False,
    ) -> None:
        if len(instance_shape) != 1:
            raise UserError(
                f"encoder=features takes feature vectors, but instances have the shape {tuple(instance_shape)}: "
                "choose an image encoder such as encoder=small_cnn"
            )
        super().__init__(nn.Linear(instance_shape[0], out_features))
        if norm != "none":
            self.append(BatchNorm1d(out_features) if norm == "batch" else nn.LayerNorm(out_features))
        if relu:
            self.append(nn.ReLU(inplace=True))
        self.out_features = out_features


class Identity(nn.Flatten):
    """Features as they are; images become their values in a row."""

    def __init__(self, instance_shape: InstanceShape) -> None:
        super().__init__()
        self.out_features = math.prod(instance_shape)


class BatchNorm1d(nn.BatchNorm1d):
    """Batch normalisation that takes its running statistics for a lone instance, which has no variance."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or rows_of_step(len(input)) > 1:
            return super().forward(input)
        return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


def normalisation(norm: Norm, channels: int) -> list[nn.Module]:
    """Normalisation layer after a convolution, none for `none`.

    Raises:
        UserError: channels that do not come in groups of 8.
    """
    if norm == "group" and channels % 8:
        raise UserError(f"encoder.norm=group works on groups of 8 channels, but a stage has {channels}")
    if norm == "none":
        return []
    return [nn.BatchNorm2d(channels) if norm == "batch" else nn.GroupNorm(channels // 8, channels)]


def image_shape(instance_shape: InstanceShape, encoder: str, smallest: int = 1) -> tuple[int, int, int]:
    """(C, H, W) of the instances.

    Raises:
        UserError: they are no images, or smaller than `smallest` pixels.
    """
    if len(instance_shape) != 3:
        raise UserError(
            f"encoder={encoder} takes images (C, H, W), but instances have the shape {tuple(instance_shape)}: "
            "choose encoder=features or encoder=identity"
        )
    channels, height, width = instance_shape
    if min(height, width) < smallest:
        raise UserError(
            f"encoder={encoder} needs images of at least {smallest}x{smallest} pixels, but they are {height}x{width}: "
            "choose encoder=small_cnn or resize them"
        )
    return channels, height, width


@torch.no_grad()
def output_width(encoder: nn.Module, instance_shape: InstanceShape) -> int:
    """Features a network gives for one instance, found by trying it."""
    encoder.eval()
    features = encoder(torch.zeros(1, *instance_shape))
    encoder.train()
    return features.shape[1]
