"""Arguments of timm's networks as a configuration writes them: classes by their name."""

import functools
from collections.abc import Mapping
from typing import Any

import timm.layers
from torch import nn

from kd_mil.core.errors import UserError
from kd_mil.core.suggestions import closest

CLASSES = ("act_layer", "mlp_layer", "norm_layer", "attn_layer", "embed_layer")
"""Arguments whose value is a class."""


def with_classes(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments with classes in place of names: `SwiGLUPacked` is timm.layers', `SiLU` torch.nn's.

    Raises:
        UserError: a name that neither has.
    """
    return {key: layer_class(key, value) if key in CLASSES else value for key, value in arguments.items()}


def layer_class(argument: str, name: Any) -> Any:
    """The layer of that name; None stays None."""
    if name is None:
        return None
    for module in (timm.layers, nn):
        found = getattr(module, str(name), None)
        if is_layer(found):
            return found
    known = [known for module in (timm.layers, nn) for known, value in vars(module).items() if is_layer(value)]
    meant = "".join(f", did you mean {word}?" for word in closest(str(name), known, similarity=0.6)[:1])
    raise UserError(f"encoder.model_args.{argument}={name}: no layer of timm.layers or torch.nn{meant}")


def is_layer(value: Any) -> bool:
    """Whether it makes a layer: a class of modules, or one with some arguments set, as timm's `SwiGLUPacked`."""
    made = value.func if isinstance(value, functools.partial) else value
    return isinstance(made, type) and issubclass(made, nn.Module)
