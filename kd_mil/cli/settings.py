"""Wrong kinds of values in a configuration, found before anything is built from them."""

import inspect
import types
import typing
from collections.abc import Sequence
from typing import Any

from hydra.utils import get_object

from kd_mil.core.errors import UserError

PLAIN: dict[type, tuple[type, ...]] = {float: (int, float), int: (int,), bool: (bool,), str: (str,), list: (list,)}
"""What may stand where a class asks for one of these."""
WORDS = {
    float: "a number",
    int: "an integer",
    bool: "true or false",
    str: "text",
    list: "a list [a,b]",
    type(None): "null",
}


def check_settings(config: Any, path: str = "") -> None:
    """Compare the plain values of every `_target_` node with what its constructor says it takes.

    Only arguments annotated as numbers, booleans, text, sequences or None are looked at, here and in the classes above.

    Raises:
        UserError: naming the key, its value and what it should be.
    """
    if isinstance(config, dict):
        expected = constructor_types(config["_target_"]) if isinstance(config.get("_target_"), str) else {}
        for key, value in config.items():
            place = f"{path}.{key}" if path else str(key)
            if key in expected and not fits(value, expected[key]):
                wanted = " or ".join(WORDS[kind] for kind in expected[key])
                shown = "null" if value is None else value
                raise UserError(f"{place}={shown}: must be {wanted}")
            check_settings(value, place)
    elif isinstance(config, list):
        for position, value in enumerate(config):
            check_settings(value, f"{path}.{position}")


def constructor_types(target: str) -> dict[str, tuple[type, ...]]:
    """Plain types that each named argument of a class of this project may have; arguments of other types are left out.

    Classes that cannot be imported say so when they are built.
    """
    try:
        found = get_object(target)
    except Exception:  # whatever it is, building the object will say it
        return {}
    types_of: dict[str, tuple[type, ...]] = {}
    for one in reversed(inspect.getmro(found)) if inspect.isclass(found) else (found,):
        if one.__module__.startswith("kd_mil") or one.__qualname__ == "Trainer":
            function = vars(one).get("__init__") if inspect.isclass(one) else one
            types_of |= {name: kinds for name, hint in hints(function).items() if (kinds := plain_kinds(hint))}
    return types_of


def hints(function: Any) -> dict[str, Any]:
    """Annotations of a function; none where they cannot be resolved."""
    try:
        return {name: hint for name, hint in typing.get_type_hints(function).items() if name != "return"}
    except (NameError, TypeError, AttributeError):
        return {}


def plain_kinds(hint: Any) -> tuple[type, ...]:
    """The types of a union of plain ones, sequences as lists; empty for anything else."""
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    kinds = tuple(
        list if typing.get_origin(kind) in (Sequence, list) else kind
        for kind in (typing.get_args(hint) if union else (hint,))
    )
    return kinds if all(kind in (*PLAIN, type(None)) for kind in kinds) and kinds != (type(None),) else ()


def fits(value: Any, kinds: tuple[type, ...]) -> bool:
    """Whether a value of a configuration is of one of the kinds."""
    if value is None:
        return type(None) in kinds
    if isinstance(value, bool):
        return bool in kinds
    return any(isinstance(value, PLAIN[kind]) for kind in kinds if kind in PLAIN)
