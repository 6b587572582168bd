"""Files that appear under their name only when they are complete."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from kd_mil.core.errors import UserError
from kd_mil.core.hashing import digest
from kd_mil.core.machine.processes import is_dead, process_space

if TYPE_CHECKING:
    import numpy as np

ABANDONED_SECONDS = 3600.0
"""An unfinished file of another machine that was not written to for this long belongs to nobody any more."""
LONGEST_NAME = 200
"""Bytes of a file name up to which its unfinished file bears it, too; 255 are the most a name may have."""
PNG_LEVEL = 2
"""Of zlib's 9: a heat map takes a third of the time of level 6 and 7 % more space."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a hidden path in the same folder to write to; renamed to `path` at the end, removed after an error.

    The folder is made if need be. The last of several writers wins.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = unfinished_path(path)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_new(path: Path, text: str) -> bool:
    """Write a small file that must not exist yet; False where it does. Of several writers one wins.

    It is never seen without its content, but on a file system without hard links.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = unfinished_path(path)
    try:
        aside.write_text(text)
        try:
            os.link(aside, path)
        except FileExistsError:
            raise
        except OSError:
            with path.open("x") as file:
                file.write(text)
    except FileExistsError:
        return False
    finally:
        aside.unlink(missing_ok=True)
    return True


def remove_unfinished(path: Path) -> None:
    """Remove what killed writers of `path` left; a file that a living process may be writing stays."""
    _remove_abandoned(path.parent, f".{escape(_short(path.name))}.*.part")


def remove_all_unfinished(folder: Path, below: bool = False) -> None:
    """Remove what killed writers of any file in a folder left, and in those `below`; as `remove_unfinished`."""
    _remove_abandoned(folder, "**/.*.part" if below else ".*.part")


def _remove_abandoned(folder: Path, pattern: str) -> None:
    for part in folder.glob(pattern):
        with suppress(OSError):  # another process removed it just now
            if _is_abandoned(part):
                part.unlink()


def unfinished_path(path: Path) -> Path:
    """A hidden name beside `path` that says which process writes it, and is tidied away once that process is gone."""
    return path.with_name(f".{_short(path.name)}.{process_space()}-{os.getpid()}-{uuid4().hex[:8]}.part")


def _short(name: str) -> str:
    return name if len(name.encode(errors="surrogateescape")) <= LONGEST_NAME else digest(os.fsencode(name).hex())


def _is_abandoned(part: Path) -> bool:
    space, _, rest = [*part.name.split("."), ""][-3].partition("-")
    pid = rest.partition("-")[0]
    if space == process_space() and pid.isdecimal():
        return is_dead(space, int(pid))
    return time.time() - part.stat().st_mtime > ABANDONED_SECONDS


def require_writable(folder: Path) -> None:
    """Find out, without making it, that a folder for results cannot be made or written to.

    Raises:
        UserError: it cannot.
    """
    nearest = next(path for path in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(path))
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        why = "may not be written" if nearest.is_dir() else "is no folder"
        raise UserError(f"out={folder}: {str(nearest)!r} {why}; choose another folder")


def write_figure(path: Path, figure: Any, dpi: float | None = None) -> None:
    """Draw a figure of Matplotlib into a PNG that is either whole or not there; without `dpi`, as the figure says."""
    settings = {"compress_level": PNG_LEVEL}
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi="figure" if dpi is None else dpi, pil_kwargs=settings)


def write_arrays(path: Path, arrays: dict[str, "np.ndarray"]) -> None:
    """Write an `.npz` that is either whole or not there, also when several processes write it at once."""
    import numpy as np  # commands that only look at a folder do without

    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
