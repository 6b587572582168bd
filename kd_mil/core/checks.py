"""Checks of settings and of names from outside that no type can say, each one line that says where.

What a type can say (`Literal["best", "last"]`, `int | None`) is checked by `kd_mil.cli.settings` instead.
"""

import math
import unicodedata
from collections.abc import Iterable, Mapping
from numbers import Integral, Real

from kd_mil.core.errors import UserError
from kd_mil.core.suggestions import closest

LONGEST_ID = 200
"""Bytes of an id: with a suffix, and the random part of an unfinished file, 255 are the most a file name may have."""


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
    """Refuse a share outside [0, 1], and what is no number; `zero` and `one` say whether the ends belong to it.

    Raises:
        UserError: naming the setting and the interval.
    """
    number(name, value)
    if not (0 <= value <= 1) or (value == 0 and not zero) or (value == 1 and not one):
        raise UserError(f"{name}={shown(value)}: a share, it must lie in {'(['[zero]}0, 1{')]'[one]}")


def at_least(name: str, value: float, least: float) -> None:
    """Refuse a number below the least one, infinity, NaN, and what is no number.

    Raises:
        UserError: naming the setting and the least value.
    """
    number(name, value)
    if not least <= value < math.inf:
        raise UserError(f"{name}={shown(value)}: must be at least {least}")


def above(name: str, value: float, bound: float = 0) -> None:
    """Refuse a number that is not above the bound, infinity, NaN, and what is no number.

    Raises:
        UserError: naming the setting and the bound.
    """
    number(name, value)
    if not bound < value < math.inf:
        raise UserError(f"{name}={shown(value)}: must be above {bound}")


def whole(name: str, value: object, least: int) -> None:
    """Refuse what is no whole number, or one below the least.

    Raises:
        UserError: naming the setting and the least value.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise UserError(f"{name}={shown(value)}: must be a whole number, at least {least}")


def number(name: str, value: object) -> None:
    """Refuse what is no number, and cannot be compared with one.

    Raises:
        UserError: naming the setting.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise UserError(f"{name}={shown(value)}: must be a number")


def shown(value: object) -> str:
    """A value as the command line spells it."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def check_id(value: str, where: str) -> None:
    """Refuse an id of a slide or an image that is not fit to name a file; called where ids enter.

    Args:
        value: the id.
        where: begins the line: the table and its line, or the folder.

    Raises:
        UserError: an empty id, `.` or `..`, one with a separator, of more than `LONGEST_ID` bytes, not UTF-8, or what
            `check_cell` refuses.
    """
    check_cell("id", value, where)
    if value in ("", ".", "..") or "/" in value or "\\" in value:
        raise UserError(f"{where}: id {value!r} cannot name a file: leave out slashes")
    if (size := len(value.encode(errors="replace"))) > LONGEST_ID:
        raise UserError(f"{where}: id {value[:20]!r}... has {size} bytes, it cannot name a file: {LONGEST_ID} at most")


def check_cell(name: str, value: str, where: str) -> None:
    """Refuse an id or the name of a class that does harm in a table; numbers such as -1 do none.

    Spreadsheets run a cell that begins with `=`, `+`, `-` or `@` as a formula (CSV injection,
    https://owasp.org/www-community/attacks/CSV_Injection).

    Args:
        name: what it is, for the message: id, label, case_id.
        value: the text.
        where: begins the line: the table and its line, or the setting.

    Raises:
        UserError: such a beginning, a control character, or a file name that is not UTF-8.
    """
    if not value.isprintable() and any(unicodedata.category(one) in ("Cc", "Cs", "Zl", "Zp") for one in value):
        raise UserError(f"{where}: {name} {value!r} holds a line break, a control character or a byte that is no text")
    if is_formula(value):
        raise UserError(f"{where}: {name} {value!r} begins as a formula, which spreadsheets run: give it another name")


def check_cells(where: str, columns: Mapping[str, Iterable[str]]) -> None:
    """Refuse whatever `check_cell` does in any of several lists, by what they are: ids, cases, names of classes."""
    for name, values in columns.items():
        for value in values:
            check_cell(name, value, where)


def harmless(text: str) -> str:
    """Text that a spreadsheet shows and does not run: the beginning of a formula gets a quotation mark before it."""
    return f"'{text}" if is_formula(text) else text


def is_formula(text: str) -> bool:
    """Whether a spreadsheet would run a cell; numbers such as -1 it does not."""
    return text[:1] in ("=", "+", "-", "@") and not _is_number(text)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
