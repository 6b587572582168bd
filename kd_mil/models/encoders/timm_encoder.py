"""Encoders from timm: any of its image backbones, with random or published weights."""

from typing import Any

import timm
import torch
from torch import Tensor, nn

from kd_mil.core.errors import UserError
from kd_mil.core.suggestions import closest
from kd_mil.models.encoders.small import InstanceShape, image_shape, output_width
from kd_mil.models.published_weights import create_model


class TimmEncoder(nn.Module):
    """Any backbone of timm without its classifier.

    Pretrained weights bring the mean and standard deviation they were trained with: images are normalised here, so they
    must come in [0, 1] and not normalised already. Where the number of channels differs, all get the average.

    Args:
        instance_shape: (C, H, W).
        name: model name as in `timm.list_models()`, or a hub name such as `hf-hub:owner/model`.
        pretrained: load the published weights.
        img_size: side to build a vision transformer for that would else insist on its own.

    Raises:
        UserError: instances that are no images, an unknown name, weights out of reach, or images of the wrong size.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, instance_shape: InstanceShape, name: str, pretrained: bool = False, img_size: int | None = None
    ) -> None:
        super().__init__()
        channels, height, width = image_shape(instance_shape, f"timm encoder.name={name}")
        self.backbone = create_backbone(name, pretrained, channels, img_size)
        published: dict[str, Any] = self.backbone.pretrained_cfg  # type: ignore[assignment]
        for statistic, plain in (("mean", 0.0), ("std", 1.0)):
            values = torch.tensor(published[statistic] if pretrained else plain).flatten()
            values = values if len(values) == channels else values.mean().expand(channels)
            self.register_buffer(statistic, values.view(-1, 1, 1).clone())
        try:
            self.out_features = output_width(self, instance_shape)
        except (AssertionError, RuntimeError) as error:
            raise UserError(
                f"encoder.name={name} cannot take {height}x{width} images ({error}): "
                "set encoder.img_size for a vision transformer, or resize the images"
            ) from error

    def forward(self, images: Tensor) -> Tensor:
        """Map (N, C, H, W) in [0, 1] to (N, out_features).

        A lone image has no batch statistics: BatchNorm then takes its running ones.
        """
        lone = self.training and len(images) == 1
        self.backbone.train(self.training and not lone)
        features = self.backbone((images - self.mean) / self.std)
        self.backbone.train(self.training)
        return features


def create_backbone(name: str, pretrained: bool, channels: int, img_size: int | None = None) -> nn.Module:
    """Make the timm model `name` without classifier for images of `channels` channels.

    Raises:
        UserError: unknown name (with the closest known ones), an option it does not have, or weights out of reach.
    """
    if ":" not in name and not timm.is_model(name):
        close = closest(name, timm.list_models(), count=3, similarity=0.6) or timm.list_models(f"*{name}*")[:3]
        hint = f"did you mean {', '.join(close)}?" if close else "timm.list_models() names them all"
        raise UserError(f"encoder.name={name!r} is not a model of timm {timm.__version__}: {hint}")
    options: dict[str, Any] = {} if img_size is None else {"img_size": img_size}
    try:
        return create_model(name, pretrained=pretrained, num_classes=0, in_chans=channels, **options)
    except TypeError as error:
        if img_size is None:
            raise
        raise UserError(f"encoder.img_size={img_size}: {name} works at any size, leave it out") from error
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"encoder.name={name!r}: the model or its weights cannot be had ({str(error).partition('. ')[0]}): "
            "connect to the network once, or set encoder.pretrained=false"
        ) from error
