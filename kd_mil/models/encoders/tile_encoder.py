"""Tiles to features: the encoder with everything that happens to pixels before it, and its identity."""

import contextlib
import hashlib
from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_mil.core.checks import one_of
from kd_mil.core.draws import apart

Precision = Literal["float32", "bfloat16"]
INTERPOLATIONS = ("bilinear", "bicubic")


class TileEncoder:
    """A frozen encoder of uint8 tiles.

    Tiles become floats in [0, 1]. An encoder that insists on its own size (a vision transformer of timm built without
    `img_size`) gets the whole tile resized, not cropped: the field of view is that of the tiling. Normalisation is the
    encoder's own. On a GPU, images lie channels-last, which convolutions prefer; on a CPU that gains nothing.

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
        self.size = own_size(config) or tile_size
        with apart(seed):
            encoder = factory(instance_shape=(3, self.size, self.size)).eval().requires_grad_(False)
        self.num_features = int(encoder.out_features)  # type: ignore[arg-type]
        self.identity = {
            "name": config.get("name") or str(config.get("_target_", type(encoder).__name__)).rpartition(".")[2],
            "config": config,
            "weights": weights_hash(encoder),
            "features": self.num_features,
            "precision": self.precision,
        }
        self.transform: dict[str, Any] = {
            "size": self.size,
            "interpolation": interpolation_of(encoder),
            "mean": channel_values(encoder, "mean", 0.0),
            "std": channel_values(encoder, "std", 1.0),
        }
        layout = torch.channels_last if device.type == "cuda" else torch.contiguous_format
        self._encoder = encoder.to(device, memory_format=layout)  # type: ignore[call-overload]

    @torch.inference_mode()
    def __call__(self, tiles: Tensor) -> Tensor:
        """Encode tiles (N, H, W, 3) uint8 to features (N, D) on the device; without waiting for a GPU."""
        images = tiles.to(self.device, non_blocking=True).permute(0, 3, 1, 2)  # the memory stays channels-last
        if self.device.type != "cuda":
            images = images.contiguous()
        images = images.float() / 255
        if images.shape[-1] != self.size:
            mode = self.transform["interpolation"]
            images = F.interpolate(images, (self.size, self.size), mode=mode, antialias=True).clamp(0, 1)
        with self._autocast():
            features = self._encoder(images)
        return features.float()

    def _autocast(self) -> contextlib.AbstractContextManager:
        if self.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)


def best_precision(device: torch.device) -> Precision:
    """`bfloat16` on a GPU that computes in it, else `float32`."""
    return "bfloat16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"


def own_size(config: dict[str, Any]) -> int | None:
    """Side of the images that a timm encoder insists on; None for one that takes any, or was given `img_size`."""
    import timm

    name = config.get("name")
    if not str(config.get("_target_", "")).endswith("TimmEncoder") or config.get("img_size") or not name:
        return None
    if ":" in name:
        try:
            published = timm.models.load_model_config_from_hf(name.partition(":")[2])[0]
        except (OSError, ValueError):  # out of reach: making the encoder will say so
            return None
    else:
        found = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
        published = {} if found is None else found.to_dict()
    return published["input_size"][-1] if published.get("fixed_input_size") else None


def interpolation_of(encoder: nn.Module) -> str:
    """What resizes tiles: what a timm encoder was trained with, where it is one of `INTERPOLATIONS`; else bicubic."""
    published = getattr(getattr(encoder, "backbone", None), "pretrained_cfg", None) or {}
    named = published.get("interpolation")
    return named if named in INTERPOLATIONS else "bicubic"


def channel_values(encoder: nn.Module, name: str, default: float) -> list[float]:
    """A statistic (3 numbers) that the encoder normalises with; the default where it has none."""
    statistic = getattr(encoder, name, None)
    return statistic.flatten().tolist() if isinstance(statistic, Tensor) else [default] * 3


def weights_hash(module: nn.Module) -> str:
    """First 16 hex digits of SHA-256 over names, types, shapes and bytes of the state."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]
