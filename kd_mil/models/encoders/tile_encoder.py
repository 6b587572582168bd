"""Tiles to features: the encoder with everything that happens to pixels before it, and its identity."""

import contextlib
import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from kd_mil.core.checks import one_of
from kd_mil.core.draws import apart

Precision = Literal["float32", "bfloat16"]
UNRECORDED = ("frozen", "weights")
"""Settings of an encoder that say nothing of its features: the hash of the weights tells more than their path."""


class TileEncoder:
    """A frozen encoder of uint8 tiles.

    Tiles become floats in [0, 1]. Resizing, cropping and normalisation are the encoder's own (its attributes `resize`,
    `crop`, `interpolation`, `mean` and `std`, where it has them). A network of timm of fixed size gets the whole tile
    resized, so that the field of view is that of the tiling. On a GPU, images lie channels-last, which convolutions
    prefer; on a CPU that gains nothing.

    Args:
        factory: `factory(instance_shape=(3, S, S)) -> nn.Module` with `out_features`, as `conf/encoder` builds.
        config: what the factory was built from, plain containers; kept in `identity`.
        tile_size: side of the tiles in pixels.
        device: where it runs.
        precision: `float32` or `bfloat16` (autocast); null = bfloat16 on GPUs that have it.
        seed: of random weights.

    Raises:
        UserError: an encoder that does not take such tiles, or an unknown precision.
    """

    def __init__(
        self,
        factory: Callable[..., nn.Module],
        config: dict[str, Any],
        tile_size: int,
        device: torch.device,
        precision: Precision | None = None,
        seed: int = 0,
    ) -> None:
        self.device, self.tile_size = device, tile_size
        one_of("precision", precision, (*get_args(Precision), None))
        self.precision = precision or best_precision(device)
        with apart(seed):
            encoder = factory(instance_shape=(3, tile_size, tile_size)).eval().requires_grad_(False)
        self.num_features = int(encoder.out_features)  # type: ignore[arg-type]
        self.identity = {
            "name": config.get("name") or str(config.get("_target_", type(encoder).__name__)).rpartition(".")[2],
            "preset": config.get("preset"),
            "config": {key: value for key, value in config.items() if key not in UNRECORDED},
            "output": getattr(encoder, "output", None),
            "weights": weights_hash(encoder),
            "features": self.num_features,
            "precision": self.precision,
        }
        self.transform: dict[str, Any] = {
            "size": getattr(encoder, "resize", None) or tile_size,
            "interpolation": getattr(encoder, "interpolation", "bicubic"),
            "mean": channel_values(encoder, "mean", 0.0),
            "std": channel_values(encoder, "std", 1.0),
        }
        self.wanted_mpp = numbers(getattr(encoder, "mpp", None))
        """µm per pixel of the tiles that the encoder was trained on; empty where it does not say."""
        if getattr(encoder, "crop", None) is not None:
            self.transform["crop"] = encoder.crop
        layout = torch.channels_last if device.type == "cuda" else torch.contiguous_format
        self._encoder = encoder.to(device, memory_format=layout)  # type: ignore[call-overload]

    @torch.inference_mode()
    def __call__(self, tiles: Tensor) -> Tensor:
        """Encode tiles (N, H, W, 3) uint8 to features (N, D) on the device; without waiting for a GPU."""
        images = tiles.to(self.device, non_blocking=True).permute(0, 3, 1, 2)  # the memory stays channels-last
        if self.device.type != "cuda":
            images = images.contiguous()
        with self._autocast():
            features = self._encoder(images.float() / 255)
        return features.float()

    def _autocast(self) -> contextlib.AbstractContextManager:
        if self.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)


def best_precision(device: torch.device) -> Precision:
    """`bfloat16` on a GPU that computes in it, else `float32`."""
    return "bfloat16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"


def channel_values(encoder: nn.Module, name: str, default: float) -> list[float]:
    """A statistic (3 numbers) that the encoder normalises with; the default where it has none."""
    statistic = getattr(encoder, name, None)
    return statistic.flatten().tolist() if isinstance(statistic, Tensor) else [default] * 3


def numbers(value: float | Sequence[float] | None) -> list[float]:
    """One number, several or none as a list."""
    if value is None:
        return []
    return [float(value)] if isinstance(value, int | float) else [float(item) for item in value]


def weights_hash(module: nn.Module) -> str:
    """First 16 hex digits of SHA-256 over names, types, shapes and bytes of the state."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]
