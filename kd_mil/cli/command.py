"""What every command shares: where the configuration lies, and one clear line for each mistake."""

import functools
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

import kd_mil
from hydra_plugins.kd_mil_plugins.adaptive import AdaptiveSweeper
from hydra_plugins.kd_mil_plugins.launcher import ProcessLauncher
from kd_mil.cli.arguments import (
    CONFIG_DIR,
    check_additions,
    check_options,
    options_first,
    without_unset_groups,
)
from kd_mil.cli.expected import check_types
from kd_mil.cli.experiments import check_experiment, register_experiments
from kd_mil.cli.help import help_text
from kd_mil.cli.mistakes import one_line_for_each_mistake
from kd_mil.cli.resolvers import register_resolvers
from kd_mil.cli.settings import check_settings
from kd_mil.core.machine.environment import FULL_ERROR, TRACEBACK_WANTED
from kd_mil.core.version import __version__

DISPATCHED = "run"
"""The command whose points of a sweep are processes of their own, which check their settings themselves."""

# at import: a job of another launcher imports this module, then composes its configuration
register_resolvers()
register_experiments(CONFIG_DIR, Path.cwd())


def command(
    config_name: str, first: Callable[[DictConfig], Any] | None = None
) -> Callable[[Callable[[DictConfig], Any]], Callable[[], None]]:
    """Make a function of the configuration a command line: `python -m kd_mil.<command> key=value ...`.

    Help, and what the command line alone forbids, must not wait for the imports of PyTorch and Lightning. So a command
    is a light module, its function imports the work from `kd_mil.jobs`, and what can be refused without these libraries
    is refused by `first`, before the classes that the configuration names are imported. What it returns, unless that is
    None, is the answer of the command, which then does nothing more.

    A mistake of the user's ends with one line and exit code 2; `HYDRA_FULL_ERROR=1` shows the traceback. Bugs keep
    their traceback and exit code 1.
    """

    def decorate(task: Callable[[DictConfig], Any]) -> Callable[[], None]:
        @functools.wraps(task)
        def run() -> None:
            if {"-h", "--help"} & set(sys.argv[1:]):
                print(help_text(CONFIG_DIR, config_name))
                return
            if "--version" in sys.argv[1:]:
                print(f"kd_mil {__version__}")
                return
            verbose = os.environ.get(FULL_ERROR) == "1"
            if signal.getsignal(signal.SIGINT) is kd_mil._leave:
                signal.signal(signal.SIGINT, signal.default_int_handler)
            for plugin in (ProcessLauncher, AdaptiveSweeper):  # Hydra's own search misses editable installations
                Plugins.instance().register(plugin)
            os.environ[TRACEBACK_WANTED] = "1" if verbose else ""
            # Hydra prints and swallows composition errors unless asked for the full error.
            os.environ[FULL_ERROR] = "1"

            def check(config: DictConfig) -> Any:
                check_additions(HydraConfig.get().overrides.task, config_name)
                plain: Any = OmegaConf.to_container(config, resolve=True)
                check_types(config_name, plain)
                answer = None if first is None else first(config)
                if answer is None:
                    check_settings(plain)
                return answer

            @functools.wraps(task)
            def quiet_task(config: DictConfig) -> Any:
                warnings.formatwarning = one_line_warning  # type: ignore[assignment]
                silence_known_warnings()
                if HydraConfig.get().mode == RunMode.MULTIRUN:  # the sweep reports its failures at the end
                    if config_name != DISPATCHED:
                        check(config)
                    return task(config)
                if not verbose:
                    os.environ.pop(FULL_ERROR)
                with one_line_for_each_mistake(verbose):
                    answer = check(config)
                    return task(config) if answer is None else answer

            try:
                with one_line_for_each_mistake(verbose):
                    check_options(sys.argv[1:])
                    sys.argv[1:] = options_first(without_unset_groups(sys.argv[1:], config_name))
                    check_experiment(sys.argv[1:], CONFIG_DIR, Path.cwd())
                    hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name=config_name)(quiet_task)()
            finally:  # a program that calls a command must not pass these on to the next
                os.environ.pop(TRACEBACK_WANTED)
                os.environ.pop(FULL_ERROR, None)
                if verbose:
                    os.environ[FULL_ERROR] = "1"

        return run

    return decorate


def one_line_warning(message: Warning | str, *_: Any) -> str:
    """A warning as people read it, without the line of the source that it comes from."""
    return f"warning: {' '.join(str(message).split())}\n"


def silence_known_warnings() -> None:
    """Drop messages that tell the user nothing about their run."""
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch.accelerators.cuda", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for pattern in (
        ".*does not have many workers.*",
        ".*log_every_n_steps.*",
        ".*exists and is not empty.*",
        ".*treespec, LeafSpec.*",
        ".*The dirpath has changed.*",  # a run that starts from another one's checkpoint
        ".*sync_dist=True.*",  # scores come from tables that were gathered before
    ):
        warnings.filterwarnings("ignore", message=pattern)
