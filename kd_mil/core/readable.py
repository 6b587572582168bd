"""A damaged or foreign file is one line, whatever its reader raises."""

import pickle
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kd_mil.core.errors import UserError


@contextmanager
def readable(path: Path, advice: str = "") -> Iterator[None]:
    """Turn whatever a reader raises on a damaged or foreign file into one line.

    Args:
        path: the file that is read.
        advice: what to do about it, the end of the line.

    Raises:
        UserError: in place of the reader's own error.
    """
    try:
        yield
    except (
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
    ) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: not readable as {path.suffix[1:]} ({reason}){advice and ': ' + advice}") from error
