"""Segmenters on the first stages of a timm backbone: Resnet-MIL and Swin-MIL."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from kd_mil.core.errors import UserError
from kd_mil.models.outputs import SegmentationOutput
from kd_mil.models.published_weights import create_model
from kd_mil.models.segmenters.side_heads import SideHeads, require_side


class TimmSegmenter(nn.Module):
    """Stages of any timm backbone that gives feature maps, a probability map from each.

    Args:
        instance_shape: (C, H, W) of the images.
        name: model of `timm.list_models()`.
        stages: which of its feature maps, counted from 0.
        fusion_weights: of the maps, one per stage.
        pretrained: published weights.
        fixed_size: the backbone is built for one image size, as transformers with windows are.

    Raises:
        UserError: unknown name or stages, weights out of reach, or images it cannot work with.
    """

    def __init__(
        self,
        instance_shape: Sequence[int],
        name: str,
        stages: Sequence[int] = (0, 1, 2),
        fusion_weights: Sequence[float] = (0.3, 0.3, 0.4),
        pretrained: bool = False,
        fixed_size: bool = False,
    ) -> None:
        super().__init__()
        require_side(instance_shape, name, multiple=32, smallest=32)
        size = tuple(instance_shape[1:]) if fixed_size else None
        self.backbone = feature_backbone(name, stages, instance_shape[0], pretrained, size)
        self.channels_last = self.backbone.output_fmt == "NHWC"  # transformers
        channels: list[int] = self.backbone.feature_info.channels()  # type: ignore[union-attr,operator]
        self.side_heads = SideHeads(channels, fusion_weights)

    def forward(self, images: Tensor) -> SegmentationOutput:
        """Map (B, C, H, W) float to probability maps of the same size."""
        features = self.backbone(images)
        if self.channels_last:
            features = [stage.permute(0, 3, 1, 2) for stage in features]
        return self.side_heads(features, (images.shape[-2], images.shape[-1]))


def feature_backbone(
    name: str, stages: Sequence[int], channels: int, pretrained: bool, size: tuple[int, ...] | None = None
) -> nn.Module:
    """A timm model that returns the feature maps of the given stages.

    Raises:
        UserError: unknown name or stages, or weights out of reach.
    """
    options: dict[str, Any] = {} if size is None else {"img_size": size}
    try:
        return create_model(
            name, pretrained=pretrained, features_only=True, out_indices=tuple(stages), in_chans=channels, **options
        )
    except (OSError, RuntimeError, ValueError, TypeError, IndexError, AssertionError, AttributeError) as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(
            f"segmenter.name={name!r} with stages {list(stages)} cannot be had ({reason}): take a timm model that has "
            "them, and for segmenter.pretrained=true connect to the network once"
        ) from error
