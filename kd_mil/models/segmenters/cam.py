"""Classifiers whose class activation maps segment (Zhou et al. 2016, arXiv 1512.04150); IFKD argues against them."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_mil.core.errors import UserError
from kd_mil.models.segmenters.side_heads import require_side
from kd_mil.models.segmenters.vgg import CONVOLUTIONS, VGG_WIDTHS, copy_imagenet_vgg, vgg_stage


class ClassActivation(NamedTuple):
    """Result of a `CamClassifier` on B images."""

    logits: Tensor
    """(B,) that the image is positive."""
    activation: Tensor
    """(B, H, W) share of each place in the logit, before the mean; any sign, at the image's size."""


class CamClassifier(nn.Module):
    """The trunk of VGG-MIL, global average pooling and one linear layer (Zhou et al., CVPR 2016).

    Pooling and the linear layer commute: the logit is the mean of the activation map.

    Args:
        instance_shape: (C, H, W) of the images.
        widths: channels of the stages.
        pretrained: start the convolutions from VGG16 trained on ImageNet.
    """

    def __init__(
        self, instance_shape: Sequence[int], widths: Sequence[int] = VGG_WIDTHS, pretrained: bool = False
    ) -> None:
        super().__init__()
        require_side(instance_shape, "cam", multiple=8, smallest=16)
        channels = [instance_shape[0], *widths]
        self.stages = nn.ModuleList(map(vgg_stage, channels, widths, CONVOLUTIONS))
        self.classifier = nn.Conv2d(widths[-1], 1, 1)
        if pretrained:
            copy_imagenet_vgg(self.stages, channels)

    def forward(self, images: Tensor) -> ClassActivation:
        """Classify (B, C, H, W) float images."""
        x = images
        for stage in self.stages:
            x = F.max_pool2d(stage(x), 2)
        return class_activation(self.classifier(x), images)


class TrunkClassifier(nn.Module):
    """The same on the stages of any segmenter that shows its feature maps, without its side heads.

    Args:
        segmenter: has `features(images)`, the maps of its stages, and `channels`, those of each; its last stage counts.

    Raises:
        UserError: a segmenter without feature maps.
    """

    def __init__(self, segmenter: nn.Module) -> None:
        super().__init__()
        if not hasattr(segmenter, "features"):
            raise UserError(
                f"method=cam takes a segmenter that shows its feature maps, which {type(segmenter).__name__} does not: "
                "take segmenter=cam, vgg_mil, sa_mil, resnet_mil, swin_mil or lite0_mil"
            )
        channels: list[int] = segmenter.channels  # type: ignore[assignment]
        del segmenter.side_heads  # of no use here; parameters without a gradient would stop DDP
        self.trunk, self.classifier = segmenter, nn.Conv2d(channels[-1], 1, 1)

    def forward(self, images: Tensor) -> ClassActivation:
        """Classify (B, C, H, W) float images."""
        return class_activation(self.classifier(self.trunk.features(images)[-1]), images)  # type: ignore[operator]


def class_activation(places: Tensor, images: Tensor) -> ClassActivation:
    """What the activation (B, 1, h, w) of the last stage says of images (B, C, H, W)."""
    places, size = places.float(), (images.shape[-2], images.shape[-1])
    whole = F.interpolate(places, size, mode="bilinear", align_corners=False)
    return ClassActivation(places.flatten(1).mean(1), whole[:, 0])


def scaled_activation(activation: Tensor) -> Tensor:
    """Positive activation (B, H, W) over its maximum, in [0, 1]; 0 where none is positive."""
    positive = activation.relu()
    largest = positive.flatten(1).amax(1).clamp_min(torch.finfo(positive.dtype).tiny)
    return positive / largest.view(-1, 1, 1)


def activation_probs(output: ClassActivation) -> Tensor:
    """Pseudo-mask (B, H, W) in [0, 1]: positive activation over its maximum, times the image's probability."""
    return scaled_activation(output.activation) * output.logits.sigmoid().view(-1, 1, 1)
