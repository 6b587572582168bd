"""What all segmenters end in: a map from each stage, and their fixed fusion."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_mil.core.errors import UserError
from kd_mil.models.outputs import SegmentationOutput


class SideHeads(nn.Module):
    """A 1x1 convolution to one channel for each stage; logits are enlarged to the input's size, then squashed.

    Args:
        channels: of each stage.
        fusion_weights: of each stage, not learned; they sum to 1.

    Raises:
        UserError: not one weight per stage, negative weights, or another sum.
    """

    fusion_weights: Tensor

    def __init__(self, channels: Sequence[int], fusion_weights: Sequence[float]) -> None:
        super().__init__()
        given = list(fusion_weights)
        if len(given) != len(channels) or min(given) < 0 or abs(sum(given) - 1) > 1e-6:
            raise UserError(
                f"segmenter.fusion_weights={given}: give {len(channels)} weights, one per stage, that sum to 1"
            )
        self.heads = nn.ModuleList(nn.Conv2d(width, 1, 1) for width in channels)
        self.register_buffer("fusion_weights", torch.tensor(given), persistent=False)

    def forward(self, features: Sequence[Tensor], size: tuple[int, int]) -> SegmentationOutput:
        """Maps of `size` (H, W) from the features (B, C, h, w) of each stage."""
        maps = [
            F.interpolate(head(stage).float(), size, mode="bilinear", align_corners=True)
            for head, stage in zip(self.heads, features, strict=True)
        ]
        sides = torch.cat(maps, 1).sigmoid()
        return SegmentationOutput(sides, (sides * self.fusion_weights.view(1, -1, 1, 1)).sum(1))


def require_side(image_shape: Sequence[int], name: str, multiple: int, smallest: int) -> None:
    """Refuse images that are not RGB or grey pixels of a size the network can work with.

    Raises:
        UserError: naming segmenter and size.
    """
    if len(image_shape) != 3:
        raise UserError(f"segmenter={name} takes images (C, H, W), but they have the shape {tuple(image_shape)}")
    height, width = image_shape[1:]
    if min(height, width) < smallest or height % multiple or width % multiple:
        raise UserError(
            f"segmenter={name} needs sides of at least {smallest} pixels that divide by {multiple}, "
            f"but images are {height}x{width}: set data.image_size"
        )
