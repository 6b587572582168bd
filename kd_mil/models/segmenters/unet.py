"""A U-Net (Ronneberger et al. 2015, arXiv 1505.04597) on a timm encoder: the fully supervised baseline."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_mil.models.outputs import SegmentationOutput
from kd_mil.models.segmenters.side_heads import require_side
from kd_mil.models.segmenters.timm_backbone import feature_backbone


class UNet(nn.Module):
    """Encoder from timm, a decoder of one block per stage with skip connections (Ronneberger et al. 2015).

    Args:
        instance_shape: (C, H, W) of the images.
        name: model of `timm.list_models()` that works at any size.
        stages: which of its feature maps.
        pretrained: published weights of the encoder.
        weights: file of the whole encoder's weights, in place of published ones.

    Raises:
        UserError: unknown name or stages, weights out of reach, or images it cannot work with.
    """

    def __init__(
        self,
        instance_shape: Sequence[int],
        name: str = "resnet18",
        stages: Sequence[int] = (0, 1, 2, 3, 4),
        pretrained: bool = False,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        require_side(instance_shape, "unet", multiple=32, smallest=32)
        self.encoder = feature_backbone(name, stages, instance_shape[0], pretrained, weights=weights)
        channels: list[int] = self.encoder.feature_info.channels()  # type: ignore[union-attr,operator]
        widths = [max(width // 2, 16) for width in channels[:-1]]
        incoming = [*widths[1:], channels[-1]]
        self.blocks = nn.ModuleList(
            decoder_block(below + skip, width) for below, skip, width in zip(incoming, channels, widths, strict=False)
        )
        self.head = nn.Conv2d(widths[0], 1, 1)

    def logits(self, images: Tensor) -> Tensor:
        """Map (B, C, H, W) float to logits (B, H, W)."""
        *skips, x = self.encoder(images)
        for block, skip in zip(reversed(self.blocks), reversed(skips), strict=True):
            enlarged = F.interpolate(x, (skip.shape[-2], skip.shape[-1]), mode="bilinear", align_corners=False)
            x = block(torch.cat([enlarged, skip], 1))
        size = (images.shape[-2], images.shape[-1])
        return F.interpolate(self.head(x).float(), size, mode="bilinear", align_corners=False)[:, 0]

    def forward(self, images: Tensor) -> SegmentationOutput:
        """The contract of all segmenters; the only side is the fused map."""
        probs = self.logits(images).sigmoid()
        return SegmentationOutput(probs[:, None], probs)


def decoder_block(width: int, out: int) -> nn.Sequential:
    """Two convolutions 3x3 with batch normalisation."""
    layers: list[nn.Module] = []
    for _ in range(2):
        layers += [nn.Conv2d(width, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU(inplace=True)]
        width = out
    return nn.Sequential(*layers)
