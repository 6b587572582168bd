"""Checks of settings that no type can say, each one line that names the setting.

What a type can say (`Literal["best", "last"]`, `int | None`) is checked by `kd_mil.cli.settings` instead.
"""

import math
from collections.abc import Iterable

from kd_mil.core.errors import UserError
from kd_mil.core.suggestions import closest


def one_of(name: str, value: object, choices: Iterable[object]) -> None:
    """Refuse what is not among the choices, and say which was meant.

    Raises:
        UserError: naming the setting and the choices.
    """
    choices = list(choices)
    if value in choices:
        return
    *most, last = map(shown, choices)
    listed = f"{', '.join(most)} or {last}" if most else last
    meant = closest(value, [*most, last], similarity=0.6) if isinstance(value, str) else []
    guess = "".join(f", did you mean {choice!r}?" for choice in meant)
    raise UserError(f"{name}={shown(value)}: choose {listed}{guess}")


def share(name: str, value: float, *, zero: bool = True, one: bool = True) -> None:
    """Refuse a share outside [0, 1]; `zero` and `one` say whether the ends belong to it.

    Raises:
        UserError: naming the setting and the interval.
    """
    if not (0 <= value <= 1) or (value == 0 and not zero) or (value == 1 and not one):
        raise UserError(f"{name}={shown(value)}: a share, it must lie in {'(['[zero]}0, 1{')]'[one]}")


def at_least(name: str, value: float, least: float) -> None:
    """Refuse a number below the least one, infinity and NaN.

    Raises:
        UserError: naming the setting and the least value.
    """
    if not least <= value < math.inf:
        raise UserError(f"{name}={shown(value)}: must be at least {least}")


def above(name: str, value: float, bound: float = 0) -> None:
    """Refuse a number that is not above the bound, infinity and NaN.

    Raises:
        UserError: naming the setting and the bound.
    """
    if not bound < value < math.inf:
        raise UserError(f"{name}={shown(value)}: must be above {bound}")


def shown(value: object) -> str:
    """A value as the command line spells it."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
