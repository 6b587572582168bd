"""One clear line for each mistake of a user."""

import errno
import os
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hydra.errors import HydraException, InstantiationException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from kd_mil.cli.arguments import CONFIG_DIR
from kd_mil.core.errors import UserError
from kd_mil.core.suggestions import closest, did_you_mean

FIXABLE = (TypeError, ValueError, ImportError, AttributeError)
"""What objects raise on settings they cannot take."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS)
"""What file systems answer where nothing can be written: no room, or no leave."""
INTERRUPTED = 130
LAUNCHERS = {"submitit_slurm": "slurm", "submitit_local": "slurm", "ray": "ray"}
"""Launchers that are packages of their own, by the extra that brings them."""


@contextmanager
def one_line_for_each_mistake(verbose: bool = False) -> Iterator[None]:
    """Turn a user's mistake into one line on stderr and exit code 2, Ctrl-C into 130; let everything else pass."""
    try:
        yield
    except (KeyboardInterrupt, Exception) as error:
        if not verbose and any(isinstance(link, KeyboardInterrupt) for link in chain_of(error)):
            print("stopped by Ctrl-C: nothing lost, the same command resumes", file=sys.stderr)
            sys.exit(INTERRUPTED)
        line = explain(error)
        if verbose or line is None:
            raise
        print(f"error: {line}", file=sys.stderr)
        sys.exit(2)


def explain(error: BaseException) -> str | None:
    """The mistake behind an exception in one line; None if it looks like a bug instead."""
    chain = chain_of(error)
    for link in chain:
        if isinstance(link, UserError):
            return str(link).rsplit("UserError: ", 1)[-1].strip()  # a loader worker wraps it in its traceback
    if lines := [line for link in chain if (line := _of_the_file_system(link) or _of_hydra(link))]:
        return lines[0]
    for link in chain:
        if isinstance(link, MissingConfigException) and link.options and "/" in str(link.missing_cfg_file):
            return _of_a_group(link, *str(link.missing_cfg_file).rsplit("/", 1))
        if isinstance(link, OverrideParseException):
            return _of_a_word(str(link.override))
    for link in chain:
        if isinstance(link, OmegaConfBaseException) and getattr(link, "key", None) is not None:
            return _of_a_setting(link, chain[0])
    cause = chain[1] if isinstance(error, InstantiationException) and len(chain) > 1 else error
    said = FIXABLE if cause is not error else (HydraException, OmegaConfBaseException)
    return _of_a_call(error, cause) if isinstance(cause, (*said, *_of_lightning())) else None


def chain_of(error: BaseException) -> list[BaseException]:
    """An exception and those that it came of."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None:
        chain.append(link)
        link = link.__cause__ or link.__context__
    return chain


def _of_a_group(error: MissingConfigException, group: str, name: str) -> str:
    """A choice that a group of settings does not have, or that is a package of its own."""
    if group == "hydra/launcher" and name in LAUNCHERS:
        return f"{group}={name}: pip install 'kd-mil[{LAUNCHERS[name]}]' brings it"
    return f"{group}={name}: {did_you_mean(name, error.options or [])}"


def _of_a_setting(error: OmegaConfBaseException, first: BaseException) -> str:
    """A setting that is not there, or has no value; `first` is the exception at the top of the chain."""
    name = str(error.full_key)
    for typed, taken in ((text, text[1:].partition("=")[0]) for text in sys.argv[1:] if text.startswith("~")):
        if taken == name or taken.rsplit(".", 1)[-1] == str(error.key):
            return f"{typed}: takes away what is needed; {taken}=VALUE changes it"
    if isinstance(error, MissingMandatoryValue):
        return f"{name}= is not set: give {name}=VALUE"
    if (CONFIG_DIR / name).is_dir():
        return f"{name}: none is chosen to have settings: {name}=NAME first; --help lists them"
    unknown = str(first).startswith("Could not override")  # and Hydra advises `+`, which nobody would read
    return (f"{name}: no such setting." if unknown else _one_line(first)) + _suggestion(error)


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


def _of_hydra(error: BaseException) -> str | None:
    """What Hydra does not say of itself: a folder it cannot make, a group of settings chosen by a number."""
    calls = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, OSError) and "run_job" in calls and calls[-1] == "mkdir":
        return f"{error.filename}: {os.strerror(error.errno or 0)}: choose another hydra.run.dir=FOLDER"
    if isinstance(error, ValueError) and str(error).startswith("Config group override must be"):
        typed = [text for text in sys.argv[1:] if re.fullmatch(r"[a-z_/]+=(-?[\d.]+|true|false|null)?", text)]
        typed = [text for text in typed if (CONFIG_DIR / text.partition("=")[0]).is_dir()]
        return f"{' or '.join(typed) or error}: choose a group of settings by its name; --help lists them"
    if isinstance(error, RuntimeError) and '"srun"' in str(error):
        return "hydra/launcher=submitit_slurm: there is no srun here; start the sweep where SLURM takes jobs"
    return None


def _of_a_call(error: BaseException, cause: BaseException) -> str:
    """What a class says to settings that it cannot take, without Hydra's words around it."""
    called = re.match(r"Error in call to target '[\w.]*?(\w+)'", str(error))
    return f"{called[1]}: {_one_line(cause)}" if called and cause is not error else _one_line(error)


def _of_lightning() -> tuple[type[Exception], ...]:
    """What Lightning raises on settings it cannot take; nothing before it is imported, which takes seconds."""
    module = sys.modules.get("lightning.fabric.utilities.exceptions")
    return () if module is None else (module.MisconfigurationException,)


def _one_line(error: BaseException) -> str:
    return " ".join(line.strip() for line in str(error).strip().split("\n") if line.strip())


def _of_a_word(override: str) -> str:
    """What Hydra cannot parse: a word, a path, or a value with a sign of its own grammar."""
    if quoted := _in_quotes(override):
        return f"{override}: a path with = or the like in it takes quotes of its own: {quoted}"
    if "=" not in override:
        return f"{override}: settings are written key=value; --help lists them"
    return f"{override}: no value that can be read; text with signs such as = , ( [ takes quotes: 'key=\"value\"'"


def _in_quotes(override: str) -> str | None:
    """An override that Hydra cannot parse as a shell takes it with quotes around its value; None if it is no path."""
    key, _, value = override.partition("=")
    is_path = ("/" in value or "=" in value) and value[0] not in "=[{'\""
    return f"'{key}=\"{value}\"'" if is_path else None


def _suggestion(error: OmegaConfBaseException) -> str:
    """The setting of that name elsewhere, the existing keys closest to a misspelt one, or all there are."""
    parent, wanted = error.parent_node, str(error.key)
    if not isinstance(parent, DictConfig):
        return ""
    keys = [str(key) for key in parent if key not in ("_target_", "hydra")]
    leaves = leaf_paths(OmegaConf.to_container(parent._get_root()))
    near = closest(wanted, {leaf.rsplit(".", 1)[-1] for leaf in leaves}, similarity=0.75)
    found = (
        [leaf for leaf in leaves if bare(leaf) == bare(wanted)]
        or closest(wanted, keys, count=3, similarity=0.6)
        or [leaf for leaf in leaves if leaf.rsplit(".", 1)[-1] in near]
    )
    return f" Did you mean {' or '.join(found[:3])}?" if found else f" There are: {', '.join(keys)}."


def leaf_paths(content: Any, path: str = "") -> list[str]:
    """Dotted paths of all settings of a configuration, those near the root first."""
    if not isinstance(content, dict):
        return [path]
    inner = [(key, value) for key, value in content.items() if key not in ("_target_", "_partial_", "hydra")]
    found = [leaf for key, value in inner for leaf in leaf_paths(value, f"{path}.{key}" if path else str(key))]
    return sorted(found, key=lambda leaf: leaf.count("."))


def bare(path: str) -> str:
    """Last name of a path without the words that people leave out: `trainer.max_epochs` is `epochs`."""
    return re.sub(r"^(max|num|n)_", "", path.rsplit(".", 1)[-1]).lower()
