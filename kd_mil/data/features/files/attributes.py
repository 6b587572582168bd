"""Attributes of feature files as plain values of the type that they should have."""

import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from kd_mil.core.errors import UserError


def plain(value: Any) -> Any:
    """An HDF5 attribute as a plain value, an array of one element as that; TRIDENT writes None as a string."""
    if isinstance(value, h5py.Empty):
        return None
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    return None if value == "None" else value


def plain_attributes(held: Any) -> dict[str, Any]:
    """The attributes of an open HDF5 file or of an array in it, read once; none of anything else."""
    return {key: plain(value) for key, value in held.attrs.items()} if hasattr(held, "attrs") else {}


def positive(value: Any, name: str, path: Path) -> float | None:
    """A number above 0, also one written as text; None for None.

    Args:
        value: as from `plain`.
        name: of the attribute, for the message.
        path: of the file, for the message.

    Raises:
        UserError: no number, not finite, or not above 0.
    """
    if value is None:
        return None
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not 0 < number < math.inf:
        raise UserError(f"{path}: attribute {name} is {str(value)[:40]!r}, not a number above 0")
    return value if isinstance(value, int) else number


def word(value: Any, name: str, path: Path) -> str | None:
    """A text; None for None. Arguments and errors as of `positive`."""
    if value is not None and not isinstance(value, str):
        raise UserError(f"{path}: attribute {name} is {str(value)[:40]!r}, not a text")
    return value
