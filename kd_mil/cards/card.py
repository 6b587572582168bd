"""The model card of a checkpoint: what it must hold to be used far from its run, and what it may name."""

import importlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from kd_mil.cards.recipes import recipe_of
from kd_mil.core.errors import UserError
from kd_mil.core.hashing import file_digest
from kd_mil.core.version import __version__

ALLOWED = ("kd_mil.methods", "kd_mil.models", "kd_mil.evaluation.map_reading", "torch.nn", "torch.optim")
"""Packages that only compute: their classes, and of this project also their functions, may be named by a card."""

NEEDED: dict[str, dict[str, type]] = {
    "tiles": {"tiling": dict, "tissue": dict, "backend": str},
    "features": {"dtype": str},
}
"""What the source of instances must say, by its kind."""
WORDS = ("encoder", "weights", "dtype")
NUMBERS = ("width", "tile_size", "mpp", "magnification", "slide_mpp", "slide_mpp_override", "tumour_threshold")
"""Of any source: text, and positive numbers; all may be missing or null."""
DIMENSIONS = (1, 2, 3, 4)


@dataclass(frozen=True)
class ModelCard:
    """What `kd_mil.run` keeps in a checkpoint beside the weights; plain containers."""

    method: dict[str, Any]
    """Configuration from which the method is built."""
    model_inputs: dict[str, Any]
    """Keyword arguments of the method that come from the data: shape of an instance, number of classes."""
    class_names: list[str]
    source: dict[str, Any]
    """Where instances come from: `kind` is `tiles` (tiling, tissue) or `features` (encoder, resolution)."""
    experiment: str
    checkpoint: str
    """The first 16 digits of the file's SHA-256."""


def read_card(checkpoint: Mapping[str, Any], path: Path) -> ModelCard:
    """The card of a checkpoint that `read_with_card` has read from `path`.

    Raises:
        UserError: a card without what prediction needs, or with values that cannot be.
    """
    card = checkpoint["model_card"]
    source, inputs = card.get("instance_source"), card["model_inputs"]
    if source is None:
        raise UserError(f"checkpoint {path}: its model card has no instance_source: train it again with this version")
    kind = source.get("kind")
    if not isinstance(kind, str) or kind not in NEEDED:
        raise UserError(
            f"checkpoint {path} was trained on instances that come neither from slides nor from feature files: "
            "slides can be predicted after training on data=slides or data=feature_bags"
        )
    if not all(isinstance(source.get(name), needed) for name, needed in NEEDED[kind].items()):
        names = ", ".join(NEEDED[kind])
        raise UserError(f"checkpoint {path}: its model card does not say its {names}: train it again with this version")
    refuse_odd_source(source, path)
    instance_shape(inputs, path)
    if inputs.get("num_classes") != len(card["class_names"]):
        raise UserError(f"checkpoint {path}: its model card names another number of classes than its num_classes")
    return ModelCard(
        method=card["method"],
        model_inputs=inputs,
        class_names=card["class_names"],
        source=source,
        experiment=card.get("experiment", ""),
        checkpoint=file_digest(path),
    )


def own_card(call: partial, data: Any) -> dict[str, Any]:
    """The card of a method that Python code built.

    Args:
        call: its class with the arguments it was given.
        data: the data module it trains on: `model_inputs`, `class_names`, `instance_source`.

    Raises:
        ValueError: an argument of which nothing says how it was made.
    """
    inputs = data.model_inputs
    recipe = {name: value for name, value in recipe_of(call).items() if name not in inputs}
    return {
        "kd_mil": __version__,
        "method": recipe,
        "model_inputs": inputs,
        "class_names": list(data.class_names),
        "instance_source": data.instance_source,
        "experiment": call.func.__name__,
    }


def refuse_odd_source(source: Mapping[str, Any], path: Path) -> None:
    """Compare what a card says of its training instances with what can be.

    Raises:
        UserError: naming the fact.
    """
    for name, value in source.items():
        odd = name in WORDS and not isinstance(value, str)
        odd |= name in NUMBERS and not (is_number(value) and 0 < value < math.inf)
        if odd and value is not None:
            raise UserError(
                f"checkpoint {path}: its model card says {name}={str(value)[:60]}: it was changed, or damaged"
            )


def instance_shape(inputs: Mapping[str, Any], path: Path) -> tuple[int, ...]:
    """The shape of a training instance.

    Raises:
        UserError: the card has none, or one that cannot be.
    """
    shape = inputs.get("instance_shape")
    whole = isinstance(shape, list | tuple) and all(is_number(side) and isinstance(side, int) for side in shape)
    if not whole or len(shape) not in DIMENSIONS or min(shape) < 1:  # type: ignore[arg-type]
        raise UserError(f"checkpoint {path}: its model card has no instance_shape: train it again with this version")
    return tuple(shape)  # type: ignore[arg-type]


def is_number(value: Any) -> bool:
    """Whether it is a number, and no truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def refuse_foreign_targets(config: Any, path: Path) -> None:
    """Refuse a configuration that would run anything but networks, methods and optimisers.

    Building the method calls whatever its configuration names, so a checkpoint from elsewhere could call anything.

    Raises:
        UserError: naming the first target that is not allowed, or an interpolation, which could produce one.
    """
    for key, value in walk(config):
        if isinstance(value, str) and "${" in value:
            raise UserError(f"checkpoint {path} holds an interpolation, {value!r}: refused; trust=true runs it")
        if key == "_target_" and not is_allowed(value):
            raise UserError(
                f"checkpoint {path} wants to run {value!r}: refused; trust=true runs it, if you know who made the file"
            )


def is_allowed(target: Any) -> bool:
    """Whether a target is a class (or a function of this project) both named and defined in one of `ALLOWED`."""
    if not isinstance(target, str) or not within_allowed(target):
        return False
    module, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        return False  # a path through the attributes of a module leads anywhere: kd_mil.models.encoders.small.math
    home = getattr(found, "__module__", None) or ""
    return within_allowed(f"{home}.") and (isinstance(found, type) or (callable(found) and home.startswith("kd_mil.")))


def within_allowed(name: str) -> bool:
    """Whether a dotted path begins with one of `ALLOWED`."""
    return name.startswith(tuple(f"{package}." for package in ALLOWED))


def walk(config: Any) -> Iterator[tuple[Any, Any]]:
    """All (key, value) pairs of nested mappings and lists; keys are yielded as values, too."""
    if isinstance(config, Mapping):
        for key, value in config.items():
            yield None, key
            yield key, value
            yield from walk(value)
    elif isinstance(config, list | tuple):
        for value in config:
            yield None, value
            yield from walk(value)


def without_downloads(config: Any) -> Any:
    """The configuration with `pretrained` and `weights` switched off: the weights come with the checkpoint."""
    if isinstance(config, Mapping):
        off = {"pretrained": False, "weights": None} if "pretrained" in config else {}
        return {key: off[key] if key in off else without_downloads(value) for key, value in config.items()}
    return [without_downloads(value) for value in config] if isinstance(config, list | tuple) else config


def describe(source: Mapping[str, Any]) -> str:
    """What is known of the features a checkpoint was trained on, in a few words."""
    names = ("encoder", "weights", "mpp", "magnification", "tile_size", "width")
    return ", ".join(f"{name} {source[name]}" for name in names if source.get(name) is not None)
