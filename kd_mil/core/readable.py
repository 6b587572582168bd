"""A damaged or foreign file is one line, whatever its reader raises."""

import pickle
import struct
import zipfile
import zlib
from pathlib import Path
from types import TracebackType

from kd_mil.core.errors import UserError

DAMAGED = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    RuntimeError,
    EOFError,
    ArithmeticError,
    AttributeError,
    MemoryError,
    struct.error,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What readers raise on such files."""


class readable:  # noqa: N801 - reads as a statement
    """Turn whatever a reader raises on a damaged or foreign file into one line.

    A class, since it is entered for every row of a large set and a generator costs four times as much.

    Args:
        path: the file that is read.
        advice: what to do about it, the end of the line.

    Raises:
        UserError: in place of the reader's own error.
    """

    __slots__ = ("advice", "path")

    def __init__(self, path: Path, advice: str = "") -> None:
        self.path, self.advice = path, advice

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if isinstance(error, DAMAGED):
            raise self.failure(error) from error

    def failure(self, error: Exception) -> UserError:
        """The one line."""
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        text = f"{self.path}: not readable as {self.path.suffix[1:]} ({reason})"
        return UserError(f"{text}: {self.advice}" if self.advice else text)
