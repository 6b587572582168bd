"""Values that the classes named by a configuration cannot take, found before anything is built from them."""

import inspect
import types
import typing
from collections.abc import Sequence
from typing import Any, Literal

from hydra.utils import get_object
from torch import Tensor

from kd_mil.core.checks import one_of, shown
from kd_mil.core.errors import UserError

PLAIN: dict[Any, tuple[type, ...]] = {
    float: (int, float),
    int: (int,),
    bool: (bool,),
    str: (str,),
    list: (list,),
}
"""What may stand where a class asks for one of these."""
WORDS = {
    float: "a number",
    int: "an integer",
    bool: "true or false",
    str: "text",
    list: "a list [a,b]",
}


def check_settings(config: Any, path: str = "") -> None:
    """Compare the values of every `_target_` node, however deep, with what its constructor says it takes.

    Only arguments annotated as numbers, booleans, text, `Literal`, sequences or None, and unions of these, are looked
    at, here and in the classes above.

    Raises:
        UserError: naming the key, its value and what it should be.
    """
    if isinstance(config, dict):
        expected = constructor_hints(config["_target_"]) if isinstance(config.get("_target_"), str) else {}
        for key, value in config.items():
            key_path = f"{path}.{key}" if path else str(key)
            if key in expected:
                check_value(key_path, value, expected[key])
            check_settings(value, key_path)
    elif isinstance(config, list):
        for position, value in enumerate(config):
            check_settings(value, f"{path}.{position}")


def constructor_hints(target: str) -> dict[str, Any]:
    """Annotations of the named arguments of a class of this project or an optimiser, its bases included, or a function.

    Classes that cannot be imported say so when they are built.
    """
    try:
        found = get_object(target)
    except Exception:  # whatever it is, building the object will say it
        return {}
    hints: dict[str, Any] = {}
    for owner in reversed(inspect.getmro(found)) if inspect.isclass(found) else (found,):
        if owner.__module__.startswith(("kd_mil", "torch.optim")) or owner.__qualname__ == "Trainer":
            hints |= annotations(vars(owner).get("__init__") if inspect.isclass(owner) else owner)
    return hints


def annotations(function: Any) -> dict[str, Any]:
    """Annotations of a function's arguments; none where they cannot be resolved."""
    try:
        return {name: hint for name, hint in typing.get_type_hints(function).items() if name != "return"}
    except (NameError, TypeError, AttributeError):
        return {}


def check_value(key_path: str, value: Any, hint: Any) -> None:
    """Refuse a value that is of none of the types of an annotation; the items of a list are compared one by one.

    Raises:
        UserError: naming the key, its value and what it should be.
    """
    kinds = union_members(hint)
    items = [typing.get_args(kind)[0] for kind in kinds if is_sequence(kind) and typing.get_args(kind)]
    if isinstance(value, list) and items:
        for position, item in enumerate(value):
            check_value(f"{key_path}.{position}", item, items[0])
    elif not any(fits(value, kind) for kind in kinds):
        choices = [choice for kind in kinds for choice in choices_of(kind)]
        if all(choices_of(kind) for kind in kinds):
            one_of(key_path, value, choices)
        words = [WORDS[_plain(kind)] for kind in kinds if not choices_of(kind)]
        raise UserError(f"{key_path}={shown(value)}: must be {' or '.join([*words, *map(shown, choices)])}")


def union_members(hint: Any) -> tuple[Any, ...]:
    """The types of a union, but for tensors, which a configuration cannot spell; of anything else the thing itself."""
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return tuple(kind for kind in typing.get_args(hint) if kind is not Tensor) if union else (hint,)


def is_sequence(kind: Any) -> bool:
    """Whether a list of the configuration may stand there."""
    return typing.get_origin(kind) in (Sequence, list)


def choices_of(kind: Any) -> tuple[Any, ...]:
    """The values that a `Literal` allows; `None` is such a value."""
    if kind is type(None):
        return (None,)
    return typing.get_args(kind) if typing.get_origin(kind) is Literal else ()


def fits(value: Any, kind: Any) -> bool:
    """Whether a value is of one type of an annotation; any value is of a type that a configuration cannot spell."""
    if choices := choices_of(kind):
        return any(value == choice and type(value) is type(choice) for choice in choices)
    allowed = PLAIN.get(_plain(kind), (object,))
    return isinstance(value, allowed) and (bool in allowed or object in allowed or not isinstance(value, bool))


def _plain(kind: Any) -> Any:
    return list if is_sequence(kind) else kind
