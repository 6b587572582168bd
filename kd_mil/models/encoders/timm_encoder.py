"""Encoders from timm: any of its image backbones, with random weights, published ones, or those of a file."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from kd_mil.core.checks import above, whole
from kd_mil.core.errors import UserError
from kd_mil.core.machine.dealing import rows_of_step
from kd_mil.core.suggestions import closest
from kd_mil.models.encoders.image_view import interpolation_of, own_side, viewed
from kd_mil.models.encoders.pooling import Pool, pooled
from kd_mil.models.encoders.small import InstanceShape, image_shape, output_width
from kd_mil.models.encoders.timm_arguments import with_classes
from kd_mil.models.published_weights import (
    FOLDER,
    HUB,
    create_model,
    load_strictly,
    read_state,
    state_in_folder,
    why_unavailable,
)

FAR = 3
"""Enlargements from this factor on are worth a word: most of the work is then spent on no more content."""


class TimmEncoder(nn.Module):
    """Any backbone of timm without its classifier.

    Published weights bring the mean and standard deviation they were trained with: images are normalised here, so they
    must come in [0, 1] and not normalised already. Where the number of channels differs, all get the average; weights
    of a hub, a folder or a file take grey images as RGB. A network of fixed size (a vision transformer) gets the whole
    image resized to it.

    Args:
        instance_shape: (C, H, W).
        name: model name as in `timm.list_models()`, `hf-hub:OWNER/MODEL`, or `local-dir:FOLDER` with a `config.json`.
        pretrained: load the published weights.
        img_size: side to build a vision transformer for that would else insist on its own.
        architecture: timm's name of a hub model, from which it is built where the hub is not asked.
        model_args: further arguments of the network; classes (`act_layer`, `mlp_layer`, `norm_layer`) by their name.
        weights: file (`.safetensors`, or a state dict), or folder as on the hub, in place of the published ones.
        pool: `cls`, `mean` of the patch tokens, or both side by side; None = as the model has it.
        mean, std: of the pixels in [0, 1] that the weights were trained with; None = the model's own.
        resize: side in pixels to which images are brought first; None = the side of a network of fixed size, else none.
        crop: side of the middle of the image that the network sees, after `resize`; None = all of it.
        mpp: µm per pixel of the images that the weights want, one or several; None = not known.
        preset: name under which features are recorded.
        frozen: keep all weights; heads alone are trained.

    Raises:
        UserError: instances that are no images, an unknown name, weights out of reach or of another architecture, or
            images of the wrong size.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        instance_shape: InstanceShape,
        name: str,
        pretrained: bool = False,
        img_size: int | None = None,
        architecture: str | None = None,
        model_args: Mapping[str, Any] | None = None,
        weights: str | None = None,
        pool: Pool | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        resize: int | None = None,
        crop: int | None = None,
        mpp: float | Sequence[float] | None = None,
        preset: str | None = None,
        frozen: bool = False,
    ) -> None:
        super().__init__()
        channels, *_ = image_shape(instance_shape, f"timm encoder.name={name}")
        for setting, side in (("img_size", img_size), ("resize", resize), ("crop", crop)):
            if side is not None:
                whole(f"encoder.{setting}", side, 1)
        if weights == "":
            raise UserError("encoder.weights= is empty: give a file or a folder, or encoder.weights=null")
        for wanted in [mpp] if isinstance(mpp, int | float) else mpp or ():
            above("encoder.mpp", wanted)
        self.normalises = pretrained or weights is not None
        self.output, self.crop, self.preset, self.mpp, self.frozen = pool, crop, preset, mpp, frozen
        options = with_classes(model_args or {}) | ({} if img_size is None else {"img_size": img_size})
        self.backbone = create_backbone(name, pretrained, channels, options, architecture, weights)
        published: dict[str, Any] = self.backbone.pretrained_cfg  # type: ignore[assignment]
        inputs = 3 if takes_rgb(name, architecture) else channels
        for statistic, given, plain in (("mean", mean, 0.0), ("std", std, 1.0)):
            values = torch.tensor((given or published[statistic]) if self.normalises else plain).flatten()
            values = values if len(values) == inputs else values.mean().expand(inputs)
            self.register_buffer(statistic, values.view(-1, 1, 1).clone())
        self.interpolation, self.resize = interpolation_of(published), resize or own_side(self.backbone)
        self.requires_grad_(not frozen)
        self.out_features = self._width(instance_shape, name)

    def _width(self, instance_shape: InstanceShape, name: str) -> int:
        """Features of one image, found by trying one."""
        height, width = instance_shape[1:]
        if self.crop is not None and self.crop > (self.resize or min(height, width)):
            raise UserError(f"encoder.crop={self.crop} is more than the image: set encoder.resize to that or above")
        if self.resize is not None and self.resize >= FAR * max(height, width):
            warnings.warn(
                f"encoder.name={name}: images of {width}x{height} pixels are enlarged to {self.resize}: "
                f"encoder.resize={width} or encoder.img_size={width} keeps them where the network can",
                stacklevel=2,
            )
        try:
            return output_width(self, instance_shape)
        except (AssertionError, RuntimeError) as error:
            raise UserError(
                f"encoder.name={name} cannot take {height}x{width} images ({error}): "
                "set encoder.img_size for a vision transformer, or encoder.resize"
            ) from error

    def forward(self, images: Tensor) -> Tensor:
        """Map (N, C, H, W) in [0, 1] to (N, out_features).

        A lone image has no batch statistics: BatchNorm then takes its running ones.
        """
        lone = self.training and rows_of_step(len(images)) == 1
        self.backbone.train(self.training and not lone and not self.frozen)
        images = viewed(images, self.resize, self.crop, self.interpolation)
        features = pooled(self.backbone, (images - self.mean) / self.std, self.output)
        self.backbone.train(self.training and not self.frozen)
        return features


def takes_rgb(name: str, architecture: str | None) -> bool:
    """Whether the network always has three input channels: hub models do, and take grey images as RGB."""
    return architecture is not None or name.startswith((HUB, FOLDER))


def create_backbone(
    name: str,
    pretrained: bool,
    channels: int,
    options: Mapping[str, Any],
    architecture: str | None = None,
    weights: str | None = None,
) -> nn.Module:
    """Make a timm model without classifier; arguments as in `TimmEncoder`.

    Raises:
        UserError: unknown name (with the closest known ones), an option it does not have, or weights that are out of
            reach or not the network's.
    """
    if takes_rgb(name, architecture) or weights is not None:
        if channels != 3 and not (channels == 1 and takes_rgb(name, architecture)):
            raise UserError(f"encoder.name={name}: its weights take RGB images, but instances have {channels} channels")
        channels = 3
    source, own_weights = source_of(name, pretrained, architecture, weights)
    refuse_unknown(source)
    try:
        network = create_model(source, pretrained=own_weights, num_classes=0, in_chans=channels, **options)
    except TypeError as error:
        what = "encoder.img_size" if "img_size" in str(error) else "encoder.model_args"
        raise UserError(f"{what} does not suit {source} ({error}): leave it out") from error
    except UserError:
        raise
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"encoder.name={name!r}: {why_unavailable(name, error)}") from error
    if weights is not None and not own_weights:
        path = Path(weights)
        load_strictly(network, state_in_folder(path) if path.is_dir() else read_state(path), f"encoder.weights={path}")
    return network


def source_of(name: str, pretrained: bool, architecture: str | None, weights: str | None) -> tuple[str, bool]:
    """What timm is asked for, and whether with the weights that go with it.

    Raises:
        UserError: a file of weights for a network that only the hub knows.
    """
    if weights is None:
        return (name, True) if pretrained else (architecture or name, False)
    if architecture is None and (Path(weights) / "config.json").is_file():
        return f"{FOLDER}{weights}", True
    if architecture is None and name.startswith(HUB):
        raise UserError(
            f"encoder.weights={weights}: name the network, encoder.name=ARCHITECTURE, or a folder with config.json"
        )
    return architecture or name, False


def refuse_unknown(name: str) -> None:
    """UserError for a name that is neither of timm, with the closest ones, nor of the hub or a folder."""
    if ":" in name or timm.is_model(name):
        return
    close = closest(name, timm.list_models(), count=3, similarity=0.6) or timm.list_models(f"*{name}*")[:3]
    hint = f"did you mean {', '.join(close)}?" if close else "timm.list_models() names them all"
    raise UserError(f"encoder.name={name!r} is not a model of timm {timm.__version__}: {hint}")
