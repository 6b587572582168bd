"""One clear line for each mistake of a user."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from hydra.errors import HydraException, InstantiationException, OverrideParseException
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from kd_mil.core.errors import UserError
from kd_mil.core.suggestions import closest

MENDABLE = (TypeError, ValueError, ImportError, AttributeError, MisconfigurationException)
"""What objects raise on settings they cannot take."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS)
"""What file systems answer where nothing can be written: no room, or no leave."""
INTERRUPTED = 130


@contextmanager
def one_line_for_each_mistake(verbose: bool = False) -> Iterator[None]:
    """Turn a user's mistake into one line on stderr and exit code 2, Ctrl-C into 130; let everything else pass."""
    try:
        yield
    except KeyboardInterrupt:
        if verbose:
            raise
        print("stopped by Ctrl-C: nothing lost, the same command resumes", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except Exception as error:
        line = explain(error)
        if verbose or line is None:
            raise
        print(f"error: {line}", file=sys.stderr)
        sys.exit(2)


def explain(error: BaseException) -> str | None:
    """The mistake behind an exception in one line; None if it looks like a bug instead."""
    chain, link = [], error
    while link is not None:
        chain.append(link)
        link = link.__cause__ or link.__context__  # type: ignore[assignment]
    for link in chain:
        if isinstance(link, UserError):
            return str(link).rsplit("UserError: ", 1)[-1].strip()  # a loader worker wraps it in its traceback
    if lines := [line for link in chain if (line := _of_the_file_system(link))]:
        return lines[0]
    for link in chain:
        if isinstance(link, OverrideParseException) and (quoted := _in_quotes(link.override)):
            return f"{link.override}: a path with = or the like in it takes quotes of its own: {quoted}"
    for link in chain:
        if isinstance(link, OmegaConfBaseException) and getattr(link, "key", None) is not None:
            return _one_line(chain[0]) + _suggestion(link)
    cause = chain[1] if isinstance(error, InstantiationException) and len(chain) > 1 else error
    said = MENDABLE if cause is not error else (HydraException, OmegaConfBaseException, MisconfigurationException)
    return _one_line(error) if isinstance(cause, said) else None


def _of_the_file_system(error: BaseException) -> str | None:
    """A disk that is full or read-only, in a line; some libraries (HDF5) say it in the text of an error alone."""
    number = error.errno if isinstance(error, OSError) else None
    full = number in FULL or os.strerror(errno.ENOSPC) in str(error)
    if not full and number not in CLOSED:
        return None
    place = f"{error.filename}: " if isinstance(error, OSError) and error.filename is not None else ""
    why = os.strerror(number if number in (*FULL, *CLOSED) else errno.ENOSPC)
    remedy = "make room, then the same command resumes" if full else "give leave to write there, or another folder"
    return f"{place}{why}: {remedy}"


def _one_line(error: BaseException) -> str:
    return " ".join(line.strip() for line in str(error).strip().split("\n") if line.strip())


def _in_quotes(override: str) -> str | None:
    """An override that Hydra cannot parse as a shell takes it with quotes around its value; None if it is no path."""
    key, _, value = override.partition("=")
    is_path = ("/" in value or "=" in value) and value[0] not in "=[{'\""
    return f"'{key}=\"{value}\"'" if is_path else None


def _suggestion(error: OmegaConfBaseException) -> str:
    """The existing keys closest to a misspelt one, or all there are."""
    parent = error.parent_node
    if not isinstance(parent, DictConfig):
        return ""
    keys = [str(key) for key in parent if key != "_target_"]
    close = closest(str(error.key), keys, count=3, similarity=0.6)
    return f" Did you mean {' or '.join(close)}?" if close else f" There are: {', '.join(keys)}."
