"""Segmenters on the first stages of a timm backbone: Resnet-MIL, Swin-MIL, and any other that gives feature maps."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from kd_mil.core.errors import UserError
from kd_mil.models.lite0_weights import ARCHITECTURE as LITE0
from kd_mil.models.lite0_weights import load_published
from kd_mil.models.outputs import SegmentationOutput
from kd_mil.models.published_weights import create_model, load_strictly, read_state
from kd_mil.models.segmenters.side_heads import SideHeads, require_side


class TimmSegmenter(nn.Module):
    """Stages of any timm backbone that gives feature maps, a probability map from each.

    Args:
        instance_shape: (C, H, W) of the images.
        name: model of `timm.list_models()`.
        stages: which of its feature maps, counted from 0.
        fusion_weights: of the maps, one per stage.
        pretrained: published weights; of `tf_efficientnet_lite0` those of a package, which needs no connection.
        fixed_size: the backbone is built for one image size, as transformers with windows are.
        weights: file of the whole network's weights (`.safetensors`, or a state dict), in place of published ones.

    Raises:
        UserError: unknown name or stages, weights out of reach or of another network, or images it cannot work with.
    """

    def __init__(
        self,
        instance_shape: Sequence[int],
        name: str,
        stages: Sequence[int] = (0, 1, 2),
        fusion_weights: Sequence[float] = (0.3, 0.3, 0.4),
        pretrained: bool = False,
        fixed_size: bool = False,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        require_side(instance_shape, name, multiple=32, smallest=32)
        size = tuple(instance_shape[1:]) if fixed_size else None
        self.backbone = feature_backbone(name, stages, instance_shape[0], pretrained, size, weights)
        self.channels_last = getattr(self.backbone, "output_fmt", "NCHW") == "NHWC"  # transformers; others may not say
        self.channels: list[int] = self.backbone.feature_info.channels()  # type: ignore[union-attr,operator]
        self.side_heads = SideHeads(self.channels, fusion_weights)

    def features(self, images: Tensor) -> list[Tensor]:
        """Map (B, C, H, W) float to the feature maps (B, channels, h, w) of each stage, finest first."""
        found: list[Tensor] = self.backbone(images)
        return [stage.permute(0, 3, 1, 2) for stage in found] if self.channels_last else found

    def forward(self, images: Tensor) -> SegmentationOutput:
        """Map (B, C, H, W) float to probability maps of the same size."""
        return self.side_heads(self.features(images), (images.shape[-2], images.shape[-1]))


def feature_backbone(
    name: str,
    stages: Sequence[int],
    channels: int,
    pretrained: bool,
    size: tuple[int, ...] | None = None,
    weights: str | None = None,
) -> nn.Module:
    """A timm model that returns the feature maps of the given stages; arguments as of `TimmSegmenter`.

    Raises:
        UserError: unknown name or stages, or weights out of reach or of another network.
    """
    options: dict[str, Any] = {"in_chans": channels} | ({} if size is None else {"img_size": size})
    from_file = weights is not None or (pretrained and name == LITE0)
    try:
        backbone = create_model(
            name, pretrained=pretrained and not from_file, features_only=True, out_indices=tuple(stages), **options
        )
        whole = create_model(name, pretrained=False, **options) if from_file else None
    except (OSError, RuntimeError, ValueError, TypeError, IndexError, AssertionError, AttributeError) as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(
            f"segmenter.name={name!r} with stages {list(stages)} cannot be had ({reason}): take a timm model that has "
            "them, and for segmenter.pretrained=true connect to the network once, or give segmenter.weights=FILE"
        ) from error
    if whole is not None:
        if weights is None:
            load_published(whole, "segmenter")
        else:
            whole.reset_classifier(0)  # type: ignore[operator]
            load_strictly(whole, read_state(Path(weights), "segmenter.weights"), f"segmenter.weights={weights}")
        take_weights(backbone, whole)
    return backbone


def take_weights(part: nn.Module, whole: nn.Module) -> None:
    """Give the stages that timm cut out of a network its weights; their names differ in points and a prefix.

    Raises:
        RuntimeError: a tensor that the whole network does not have.
    """
    given = {flat_name(key): value for key, value in whole.state_dict().items()}
    own = part.state_dict()
    part.load_state_dict({key: given[flat_name(key)] for key in own if flat_name(key) in given})


def flat_name(key: str) -> str:
    """`model.layers.0.weight` and `layers_0.weight` alike."""
    return key.removeprefix("model.").replace(".", "_")
