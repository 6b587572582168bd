"""Tile encoders of the library slide2vec (Apache-2.0), which keeps about 25 pathology foundation models."""

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from kd_mil.core.errors import UserError
from kd_mil.core.suggestions import closest
from kd_mil.models.encoders.image_view import INTERPOLATIONS, viewed
from kd_mil.models.encoders.small import InstanceShape, image_shape
from kd_mil.models.published_weights import HUB, reachable_hub, why_unavailable

ROUNDING = 0.05
"""Largest difference of normalised pixels between PIL, which rounds to 8 bits after resizing, and tensors."""


class Slide2VecEncoder(nn.Module):
    """A tile encoder of slide2vec, always frozen; of that library only its encoders are used, no tiling, no extraction.

    Resizing, cropping and normalisation are read from the transform that slide2vec gives and computed on whole batches.
    A transform that cannot be read so is applied to one image after the other. Some models run code of their own.

    Args:
        instance_shape: (3, H, W).
        name: as in slide2vec's registry, `virchow2`; see `slide2vec.list_models()`.
        output: variant of the output, `cls` or `cls_patch_mean`; None = the model's default.
        preset: name under which features are recorded.

    Raises:
        UserError: slide2vec or what the model needs besides is not installed, an unknown name or output, weights out of
            reach, or instances that are no RGB images.
    """

    mean: Tensor
    std: Tensor
    normalises = True
    """Images come in [0, 1], not normalised already."""

    def __init__(
        self, instance_shape: InstanceShape, name: str | None, output: str | None = None, preset: str | None = None
    ) -> None:
        super().__init__()
        channels, *_ = image_shape(instance_shape, f"slide2vec encoder.name={name}")
        if channels != 3:
            raise UserError(f"encoder=slide2vec takes RGB images, but instances have {channels} channels")
        kind, facts = registered(name, output)
        self.preset, self.output, self.mpp = (
            preset,
            output or facts["default_output_variant"],
            facts["supported_spacing_um"],
        )
        self._tiles = made(kind, str(name), self.output, facts["source"])
        for part, module in vars(self._tiles).items():
            if isinstance(module, nn.Module):
                self.add_module(part.strip("_"), module)
        self.requires_grad_(False).eval()
        self.out_features = int(self._tiles.encode_dim)
        self._transform = self._tiles.get_transform()
        self._read_transform()

    def _read_transform(self) -> None:
        """Take the steps of the transform as numbers, if they do the same to an image."""
        from slide2vec.runtime.feature_identity import transform_record

        steps = transform_record(self._transform)
        resize, crop = steps["resize"] or {}, steps["center_crop"] or {}
        self.resize = resize["size"][0] if resize.get("size") else None
        self.crop = crop["size"][0] if crop.get("size") and crop["size"][0] != self.resize else None
        named = resize.get("interpolation")
        self.interpolation = named if named in INTERPOLATIONS else "bicubic"
        normalise = steps["normalize"] or {"mean": [0.0] * 3, "std": [1.0] * 3}
        for statistic in ("mean", "std"):
            self.register_buffer(statistic, torch.tensor(normalise[statistic]).view(-1, 1, 1))
        image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 3, 512, 512), dtype=np.uint8)) / 255
        by_image, in_batches = self._one_by_one(image), self._in_batches(image)
        same = by_image.shape == in_batches.shape and bool((by_image - in_batches).abs().max() < ROUNDING)
        self._shown = self._in_batches if same else self._one_by_one

    def _in_batches(self, images: Tensor) -> Tensor:
        return (viewed(images, self.resize, self.crop, self.interpolation) - self.mean) / self.std

    def _one_by_one(self, images: Tensor) -> Tensor:
        pixels = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        return torch.stack([self._transform(Image.fromarray(tile)) for tile in pixels]).to(images.device)

    def forward(self, images: Tensor) -> Tensor:
        """Map (N, 3, H, W) in [0, 1] to (N, out_features)."""
        if torch.device(self._tiles.device) != images.device:
            self._tiles.to(images.device)
        return self._tiles.encode_tiles(self._shown(images))

    def train(self, mode: bool = True) -> "Slide2VecEncoder":
        return super().train(False)


def registered(name: str | None, output: str | None) -> tuple[type, dict[str, Any]]:
    """Class and facts of a tile encoder of slide2vec.

    Raises:
        UserError: slide2vec is not installed, or there is no such tile encoder or output.
    """
    try:
        from slide2vec.encoders import encoder_registry
    except ImportError as error:
        raise UserError(
            f"encoder=slide2vec: the library is not installed ({error}): pip install 'kd-mil[foundation]'"
        ) from error
    tiles = [known for known in encoder_registry.names() if encoder_registry.info(known)["level"] == "tile"]
    if name not in tiles:
        meant = "".join(f", did you mean {word}?" for word in closest(str(name), tiles, similarity=0.5)[:1])
        raise UserError(
            f"encoder.name={name}: not a tile encoder of slide2vec{meant or '.'} It has {', '.join(sorted(tiles))}"
        )
    facts = encoder_registry.info(name)
    if output not in (None, *facts["output_variants"]):
        raise UserError(f"encoder.output={output}: {name} has {', '.join(facts['output_variants'])}")
    return encoder_registry.require(name), facts


def made(kind: type, name: str, output: str, source: str) -> Any:
    """The encoder with its weights.

    Raises:
        UserError: weights out of reach, or another library that it needs is not installed.
    """
    try:
        with reachable_hub(asking=True):
            return kind(output_variant=output)
    except ImportError as error:
        raise UserError(f"encoder.name={name} needs another library ({error}): see {source} on the hub") from error
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"encoder.name={name}: {why_unavailable(f'{HUB}{source}', error)}") from error
