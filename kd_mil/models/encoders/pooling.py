"""From the tokens of a vision transformer to one vector an image."""

from typing import Literal

import torch
from torch import Tensor, nn

from kd_mil.core.errors import UserError

Pool = Literal["cls", "mean", "cls_mean"]


def pooled(network: nn.Module, images: Tensor, pool: Pool | None) -> Tensor:
    """Features (N, D) of images (N, C, H, W): class token, mean of the patch tokens, or both (N, 2D).

    Tokens are those after the last normalisation; register tokens count as neither. None leaves it to the network.

    Raises:
        UserError: a network that gives no vector by itself, or has no such tokens.
    """
    if pool is None:
        features = network(images)
        if features.dim() != 2:
            raise UserError(
                "encoder.pool=null: the network gives tokens, not one vector an image: set cls, mean or cls_mean"
            )
        return features
    tokens, prefix = network.forward_features(images), getattr(network, "num_prefix_tokens", None)  # type: ignore[operator]
    if tokens.dim() != 3 or prefix is None:
        raise UserError(f"encoder.pool={pool} is for vision transformers: set encoder.pool=null")
    if pool != "mean" and prefix == 0:
        raise UserError(f"encoder.pool={pool}: the network has no class token: set encoder.pool=mean")
    mean = tokens[:, prefix:].mean(1)
    if pool == "mean":
        return mean
    return tokens[:, 0] if pool == "cls" else torch.cat([tokens[:, 0], mean], dim=1)
