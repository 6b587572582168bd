"""Objects as plain containers and back: what to call with which arguments, in the form of Hydra's configurations.

recipe = recipe_of(partial(ABMIL, gated=True))    # {"_target_": "kd_mil....ABMIL", "_partial_": True, "gated": True}
build(recipe)(in_features=512, num_classes=2)
"""

import importlib
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

PLAIN = (bool, int, float, str, type(None))


def build(recipe: Any) -> Any:
    """The object that a recipe describes: mappings with `_target_` are called, from the inside out.

    `_partial_: true` gives a `functools.partial` instead of a call. Containers without a target stay containers.

    Raises:
        ImportError, AttributeError: a target that does not exist; and whatever a target raises.
    """
    if isinstance(recipe, Mapping):
        built = {key: build(value) for key, value in recipe.items() if key not in ("_target_", "_partial_")}
        if "_target_" not in recipe:
            return built
        target = find(recipe["_target_"])
        return partial(target, **built) if recipe.get("_partial_") else target(**built)
    return [build(value) for value in recipe] if isinstance(recipe, list | tuple) else recipe


def find(path: str) -> Callable[..., Any]:
    """The class or function at a dotted path, `package.module.Class` or `package.module.Class.method`.

    Raises:
        ImportError, AttributeError: there is none.
    """
    parts = path.split(".")
    for count in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:count])
        try:
            found: Any = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if count > 1 and error.name and f"{name}.".startswith(f"{error.name}."):
                continue
            raise
        for attribute in parts[count:]:
            found = getattr(found, attribute)
        return found
    raise ImportError(f"{path!r} is no dotted path to a class or function")


def recipe_of(value: Any) -> Any:
    """The recipe of a value: plain values, containers, classes, functions, partials, and objects that remember.

    An object remembers where each parameter of its class's constructor is an attribute of the same name, or where its
    attribute `made_with` has the arguments by name.

    Raises:
        ValueError: a value of which nothing says how it was made, such as a lambda.
    """
    if isinstance(value, Mapping):
        return {str(key): recipe_of(own) for key, own in value.items()}
    if isinstance(value, list | tuple):
        return [recipe_of(own) for own in value]
    if isinstance(value, partial):
        return call_recipe(value.func, value.args, value.keywords) | {"_partial_": True}
    if isinstance(value, type) or inspect.isroutine(value):
        return {"_target_": dotted_path(value), "_partial_": True}
    return value if isinstance(value, PLAIN) else call_recipe(type(value), (), remembered(value))


def call_recipe(function: Callable[..., Any], args: tuple[Any, ...], keywords: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe of a call; positional arguments go by their names."""
    bound = inspect.signature(function).bind_partial(*args, **keywords)
    arguments = dict(bound.arguments)
    for name, parameter in bound.signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            arguments |= arguments.pop(name, {})
    return {"_target_": dotted_path(function)} | {name: recipe_of(value) for name, value in arguments.items()}


def remembered(value: object) -> dict[str, Any]:
    """Arguments that an object was made with, from its attributes.

    Raises:
        ValueError: a parameter that is no attribute.
    """
    made_with = getattr(value, "made_with", None)
    if isinstance(made_with, Mapping):
        return dict(made_with)
    parameters = inspect.signature(type(value)).parameters
    for name in parameters:
        if not hasattr(value, name):
            raise ValueError(f"{type(value).__name__} does not keep its argument {name!r}: give a functools.partial")
    return {name: getattr(value, name) for name in parameters}


def dotted_path(function: Callable[..., Any]) -> str:
    """Where a class or function is found.

    Raises:
        ValueError: nowhere, as for a lambda or what is defined within a function or at the prompt.
    """
    path = f"{function.__module__}.{function.__qualname__}"
    try:
        found = find(path)
    except (ImportError, AttributeError):
        found = None
    if found is not function or function.__module__ == "__main__":
        raise ValueError(f"{path} cannot be found again: define it in a module")
    return path
