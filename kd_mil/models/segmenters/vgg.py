"""VGG-MIL, the network of IFKD's released code, and SA-MIL, the same with criss-cross attention."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn

from kd_mil.core.checks import at_least
from kd_mil.core.errors import UserError
from kd_mil.models.outputs import SegmentationOutput
from kd_mil.models.published_weights import create_model, read_state
from kd_mil.models.segmenters.attention import CrissCrossAttention
from kd_mil.models.segmenters.side_heads import SideHeads, require_side

CONVOLUTIONS = (2, 2, 3)
VGG_WIDTHS = (64, 128, 256)
IMAGENET_VGG = "vgg16.tv_in1k"
IMAGENET_LAYERS = (0, 2, 5, 7, 10, 12, 14)
"""Places of the convolutions of its first three stages among the `features` of VGG16."""


class VggMIL(nn.Module):
    """The first three stages of VGG16 with batch normalisation; a map from each stage after its pooling.

    At the default widths 1,738,243 parameters, and 186,048 multiply-adds of the stages for each input pixel.

    Args:
        instance_shape: (C, H, W) of the images.
        widths: channels of the stages.
        fusion_weights: of the three maps.
        attention_passes: rounds of criss-cross attention before each pooling, with shared weights; 0 = VGG-MIL, 2 =
            SA-MIL (Li et al. 2023).
        pretrained: start the convolutions from VGG16 trained on ImageNet; normalisation starts anew, as released.
        weights: file with the weights of a VGG16 (timm's or torchvision's, `.safetensors` or a state dict), in place of
            those of ImageNet.

    Raises:
        UserError: images it cannot work with, or weights with other widths, out of reach or of another network.
    """

    def __init__(
        self,
        instance_shape: Sequence[int],
        widths: Sequence[int] = VGG_WIDTHS,
        fusion_weights: Sequence[float] = (0.3, 0.3, 0.4),
        attention_passes: int = 0,
        pretrained: bool = False,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        require_side(instance_shape, "vgg_mil", multiple=8, smallest=16)
        if len(widths) != len(CONVOLUTIONS) or min(widths) < 1:
            raise UserError(f"segmenter.widths={list(widths)}: give the channels of {len(CONVOLUTIONS)} stages")
        at_least("segmenter.attention_passes", attention_passes, 0)
        channels = [instance_shape[0], *widths]
        self.stages = nn.ModuleList(map(vgg_stage, channels, widths, CONVOLUTIONS))
        self.attention = nn.ModuleList(CrissCrossAttention(width) for width in widths if attention_passes)
        self.pool = nn.MaxPool2d(2)
        self.attention_passes, self.channels = attention_passes, list(widths)
        self.side_heads = SideHeads(widths, fusion_weights)
        if pretrained or weights is not None:
            copy_imagenet_vgg(self.stages, channels, weights)

    def features(self, images: Tensor) -> list[Tensor]:
        """Map (B, C, H, W) float to the feature maps (B, channels, h, w) of each stage, finest first."""
        features, x = [], images
        for number, stage in enumerate(self.stages):
            x = stage(x)
            for _ in range(self.attention_passes):
                x = self.attention[number](x)
            x = self.pool(x)
            features.append(x)
        return features

    def forward(self, images: Tensor) -> SegmentationOutput:
        """Map (B, C, H, W) float to probability maps of the same size."""
        return self.side_heads(self.features(images), (images.shape[-2], images.shape[-1]))


def vgg_stage(width: int, out: int, convolutions: int) -> nn.Sequential:
    """Convolutions 3x3, each with batch normalisation and ReLU."""
    layers: list[nn.Module] = []
    for _ in range(convolutions):
        layers += [nn.Conv2d(width, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU(inplace=True)]
        width = out
    return nn.Sequential(*layers)


def copy_imagenet_vgg(stages: nn.ModuleList, channels: Sequence[int], weights: str | None = None) -> None:
    """Fill the convolutions from a VGG16 (without batch normalisation): that of a file, else of ImageNet.

    Raises:
        UserError: other channels than VGG16's, or weights out of reach or of another network.
    """
    if tuple(channels) != (3, *VGG_WIDTHS):
        raise UserError(f"segmenter.pretrained=true needs RGB images and segmenter.widths={list(VGG_WIDTHS)}")
    if weights is None:
        state = pretrained_model(IMAGENET_VGG).state_dict()
    else:
        state = read_state(Path(weights), "segmenter.weights")
    targets = [layer for layer in stages.modules() if isinstance(layer, nn.Conv2d)]
    for place, target in zip(IMAGENET_LAYERS, targets, strict=True):
        own = {name: state.get(f"features.{place}.{name}") for name in ("weight", "bias")}
        if any(value is None or value.shape != getattr(target, name).shape for name, value in own.items()):
            raise UserError(
                f"segmenter.weights={weights}: features.{place} is not that of a VGG16 without normalisation"
            )
        target.load_state_dict(own)


def pretrained_model(name: str) -> nn.Module:
    """A timm model with its published weights.

    Raises:
        UserError: out of reach.
    """
    try:
        return create_model(name, pretrained=True)
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).partition(". ")[0]
        raise UserError(
            f"weights of {name} cannot be had ({reason}): connect once, or set segmenter.pretrained=false"
        ) from error
