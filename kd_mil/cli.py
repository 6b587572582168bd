"""What every command shares: where the configuration lies, and one clear line for each mistake."""

import difflib
import functools
import hashlib
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.errors import HydraException, InstantiationException, OverrideParseException
from hydra.types import RunMode
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hydra_plugins.kd_mil_plugins.adaptive import AdaptiveSweeper
from hydra_plugins.kd_mil_plugins.launcher import ProcessLauncher
from kd_mil.errors import UserError

PACKAGE = Path(__file__).resolve().parent
CONFIG_DIR = next(path for path in (PACKAGE / "conf", PACKAGE.parent / "conf") if (path / "run.yaml").exists())
FULL_ERROR = "HYDRA_FULL_ERROR"
TRACEBACK_WANTED = "KD_MIL_TRACEBACK"
"""What the user had set `HYDRA_FULL_ERROR` to: the command sets it for itself, but must not for its children."""
MENDABLE = (TypeError, ValueError, ImportError, AttributeError, MisconfigurationException)
"""What objects raise on settings they cannot take."""


def run_name(overrides: list[str]) -> str:
    """Directory name of a run from its command-line overrides: readable, and the same for the same command."""
    apart = ("experiment=", "hydra.", "overwrite=", "ckpt_path=", "sweep.", "sweep=")
    named = [text for text in overrides if not text.startswith(apart)]
    name = re.sub(r"[^\w.,=+~-]+", "_", ",".join(sorted(named))) or "default"
    if len(name) <= 120:
        return name
    return f"{name[:100]}~{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def phased_epochs(first: int, second: int, rounds: int) -> int:
    """Epochs of a method that runs a first phase once and a second one `rounds` times."""
    return first + second * rounds


def phases_of(debug: str | None, method: str) -> str:
    """Name of the file that shortens the phases of a method; there is none without a debug preset."""
    return "none" if debug in (None, "None", "null") else method


def register_resolvers() -> None:
    """Functions the configuration files call by name."""
    OmegaConf.register_new_resolver("run_name", run_name, replace=True)
    OmegaConf.register_new_resolver("chosen_or_custom", lambda choice: choice or "custom", replace=True)
    OmegaConf.register_new_resolver("cuda_or_cpu", cuda_or_cpu, replace=True)
    OmegaConf.register_new_resolver("phased_epochs", phased_epochs, replace=True)
    OmegaConf.register_new_resolver("phases_of", phases_of, replace=True)


def cuda_or_cpu() -> str:
    """Accelerator of this machine; Apple's has no float64, which scores are kept in."""
    return "cuda" if torch.cuda.is_available() else "cpu"


register_resolvers()  # at import: a job of another launcher imports this module, then composes its configuration


def command(config_name: str) -> Callable[[Callable[[DictConfig], Any]], Callable[[], None]]:
    """Make a function of the configuration a command line: `python -m kd_mil.<command> key=value ...`.

    A mistake of the user's ends with one line and exit code 2; `HYDRA_FULL_ERROR=1` shows the traceback. Bugs keep
    their traceback and exit code 1.
    """

    def decorate(task: Callable[[DictConfig], Any]) -> Callable[[], None]:
        @functools.wraps(task)
        def run() -> None:
            verbose = os.environ.get(FULL_ERROR) == "1"
            for plugin in (ProcessLauncher, AdaptiveSweeper):  # Hydra's own search misses editable installations
                Plugins.instance().register(plugin)
            os.environ[TRACEBACK_WANTED] = "1" if verbose else ""
            # Hydra prints and swallows composition errors unless asked for the full error.
            os.environ[FULL_ERROR] = "1"

            @functools.wraps(task)
            def quiet_task(config: DictConfig) -> Any:
                silence_known_warnings()
                if HydraConfig.get().mode == RunMode.MULTIRUN:  # the sweep goes on and reports its failures at the end
                    return task(config)
                if not verbose:
                    os.environ.pop(FULL_ERROR)
                with one_line_for_each_mistake(verbose):
                    return task(config)

            try:
                with one_line_for_each_mistake(verbose):
                    hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name=config_name)(quiet_task)()
            finally:  # a program that calls a command must not pass these on to the next
                os.environ.pop(TRACEBACK_WANTED)
                os.environ.pop(FULL_ERROR, None)
                if verbose:
                    os.environ[FULL_ERROR] = "1"

        return run

    return decorate


@contextmanager
def one_line_for_each_mistake(verbose: bool = False) -> Iterator[None]:
    """Turn a user's mistake into one line on stderr and exit code 2; let everything else pass."""
    try:
        yield
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
    for link in chain:
        if isinstance(link, OverrideParseException) and (quoted := _in_quotes(link.override)):
            return f"{link.override}: a path with = or the like in it takes quotes of its own: {quoted}"
    for link in chain:
        if isinstance(link, OmegaConfBaseException) and getattr(link, "key", None) is not None:
            return _one_line(chain[0]) + _suggestion(link)
    if isinstance(error, InstantiationException):
        cause = chain[1] if len(chain) > 1 else error
        return _one_line(error) if isinstance(cause, MENDABLE) else None
    if isinstance(error, HydraException | OmegaConfBaseException | MisconfigurationException):
        return _one_line(error)
    return None


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
    close = difflib.get_close_matches(str(error.key), keys, n=3)
    return f" Did you mean {' or '.join(close)}?" if close else f" There are: {', '.join(keys)}."


def silence_known_warnings() -> None:
    """Drop messages that tell the user nothing about their run."""
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch.accelerators.cuda", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for pattern in (
        ".*does not have many workers.*",
        ".*log_every_n_steps.*",
        ".*exists and is not empty.*",
        ".*treespec, LeafSpec.*",
        ".*sync_dist=True.*",  # scores come from tables that were gathered before
    ):
        warnings.filterwarnings("ignore", message=pattern)
