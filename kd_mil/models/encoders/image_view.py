"""What of an image an encoder sees: resized, and the middle of it where its card crops."""

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

INTERPOLATIONS = ("bilinear", "bicubic")


def viewed(images: Tensor, resize: int | None, crop: int | None, interpolation: str) -> Tensor:
    """Images (N, C, H, W) in [0, 1] brought to `resize` pixels a side, then the middle of `crop` pixels; None = as is.

    As PIL resizes 8-bit images, without its rounding.
    """
    if resize is not None and tuple(images.shape[-2:]) != (resize, resize):
        images = F.interpolate(images, (resize, resize), mode=interpolation, antialias=True).clamp(0, 1)
    if crop is not None:
        top, left = (round((side - crop) / 2) for side in images.shape[-2:])
        images = images[..., top : top + crop, left : left + crop]
    return images


def own_side(network: nn.Module) -> int | None:
    """Side of the images that a network of timm was made for, where it has one: a transformer; else None."""
    embedded = getattr(getattr(network, "patch_embed", None), "img_size", None)
    if embedded is not None:
        return int(embedded[-1])
    published: Mapping[str, Any] = getattr(network, "pretrained_cfg", None) or {}
    return published["input_size"][-1] if published.get("fixed_input_size") else None


def interpolation_of(published: Mapping[str, Any]) -> str:
    """What resizes images: what the network was trained with, where it is one of `INTERPOLATIONS`; else bicubic."""
    named = published.get("interpolation")
    return named if named in INTERPOLATIONS else "bicubic"
