"""Values that the classes named by a configuration cannot take, found before anything is built from them."""

import inspect
import math
import types
import typing
from collections.abc import Sequence
from typing import Any, Literal

from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate

from kd_mil.core.checks import one_of, shown
from kd_mil.core.errors import UserError
from kd_mil.core.suggestions import did_you_mean

PLAIN: dict[Any, tuple[type, ...]] = {
    float: (int, float),
    int: (int,),
    bool: (bool,),
    str: (str,),
    list: (list,),
}
"""What may stand where a class asks for one of these."""
OTHERS = ("_target_", "_partial_", "_convert_", "_recursive_", "_args_", "threads", "compile")
"""What stands beside the arguments of a class: Hydra's words, and under `trainer` what is of the process."""
WORDS = {
    float: "a number",
    int: "an integer",
    bool: "true or false",
    str: "text",
    list: "a list [a,b]",
}


def check_settings(config: Any, path: str = "") -> None:
    """Compare the values of every `_target_` node, however deep, with what its constructor says it takes.

    Arguments that it does not take at all are refused. Of the others, only those annotated as numbers, booleans, text,
    `Literal`, sequences or None, and unions of these, are looked at, here and in the classes above.

    Raises:
        UserError: naming the key, its value and what it should be.
    """
    if isinstance(config, dict):
        expected = constructor_hints(config["_target_"]) if isinstance(config.get("_target_"), str) else {}
        check_arguments(config, path)
        for key, value in config.items():
            key_path = f"{path}.{key}" if path else str(key)
            if key in expected:
                check_value(key_path, value, expected[key])
            check_settings(value, key_path)
    elif isinstance(config, list):
        for position, value in enumerate(config):
            check_settings(value, f"{path}.{position}")


def check_arguments(config: dict[str, Any], path: str) -> None:
    """Refuse settings of a `_target_` node that no constructor would read: some are called long after they are built.

    Raises:
        UserError: naming the first, and the closest argument that there is.
    """
    target = config.get("_target_")
    takes = arguments_of(target) if isinstance(target, str) else None
    for key in config:
        if takes is not None and key not in (*takes, *OTHERS):
            place, name = f"{path}.{key}".lstrip("."), str(target).rpartition(".")[2]
            raise UserError(f"{place}: {name} takes no such setting; {did_you_mean(key, takes)}")


def arguments_of(target: str) -> list[str] | None:
    """Names that the constructor of a class takes, those it passes up to its bases included; None for any name.

    Classes of other projects, functions, and what cannot be imported take any name: they say it when they are called.
    """
    try:
        found = get_object(target)
    except Exception:  # whatever it is, building the object will say it
        return None
    if not (inspect.isclass(found) and is_known(found)):
        return None
    names: list[str] = []
    for owner in inspect.getmro(found):
        if "__init__" not in vars(owner):
            continue
        parameters = list(inspect.signature(vars(owner)["__init__"]).parameters.values())[1:]
        names += [one.name for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
        if not any(one.kind is one.VAR_KEYWORD for one in parameters):
            return names
    return None


def is_known(owner: type) -> bool:
    """Whether a class is of this project, an optimiser, or the trainer: what it takes is written at its constructor."""
    return owner.__module__.startswith(("kd_mil", "torch.optim")) or owner.__qualname__ == "Trainer"


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
        if not inspect.isclass(owner) or is_known(owner):
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
    if isinstance(value, float) and not math.isfinite(value) and hint is not object:
        raise UserError(f"{key_path}={value}: must be a finite number")
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


def check_optimizer(config: Any) -> None:
    """Find out, before data are read, what the optimiser refuses.

    Raises:
        UserError: a setting of the wrong type or range.
    """
    import torch

    try:
        instantiate(config, _convert_="all")([torch.zeros(1, requires_grad=True)])
    except InstantiationException:
        raise
    except (TypeError, ValueError) as error:
        raise UserError(f"optimizer: {error}") from error


def union_members(hint: Any) -> tuple[Any, ...]:
    """The types of a union, but for tensors, which a configuration cannot spell; of anything else the thing itself."""
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return tuple(kind for kind in typing.get_args(hint) if not is_tensor(kind)) if union else (hint,)


def is_tensor(kind: Any) -> bool:
    """Whether a type is PyTorch's, which need not be imported to know it."""
    return getattr(kind, "__module__", None) == "torch"


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
