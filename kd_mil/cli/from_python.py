"""A command as a function of Python: `kd_mil.predict(ckpt="runs/a", features="new", out="predictions")`."""

import os
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from kd_mil.cli.arguments import CONFIG_DIR
from kd_mil.cli.expected import check_types
from kd_mil.cli.help import groups_of
from kd_mil.cli.settings import check_settings
from kd_mil.core.errors import UserError
from kd_mil.core.suggestions import closest


class CallableCommand(ModuleType):
    """The module of a command, which may be called with the settings of the command."""

    def __call__(self, **settings: Any) -> Path:
        """Do what the command does, in this process.

        Args:
            **settings: of `python -m kd_mil.COMMAND --help`, those of a part as a mapping; paths as str or Path.

        Returns:
            The folder `out`, or what it is where it is not given.

        Raises:
            UserError: what the command would refuse.
        """
        name = self.__name__.rpartition(".")[2]
        config = composed_from(name, {key: plain(value) for key, value in settings.items()})
        content: Any = OmegaConf.to_container(config, resolve=True)
        check_types(name, content)
        self.refuse(config)
        check_settings(content)
        if content.get("gpus") not in (None, 1):
            raise UserError(f"gpus={content['gpus']}: further processes need the command, python -m kd_mil.{name}")
        import_module(f"kd_mil.jobs.{name}").main(config)
        return Path(content["out"] or Path(content.get("predictions") or ".") / "evaluation")


def make_callable(module: str) -> None:
    """Let the module of a command be called as a function."""
    sys.modules[module].__class__ = CallableCommand


def composed_from(command: str, settings: dict[str, Any]) -> Any:
    """The configuration of a command with these settings; a group takes the name of a choice.

    Raises:
        UserError: a setting that the command does not have.
    """
    groups = {group for group, _ in groups_of(CONFIG_DIR, command)}
    chosen = [f"{key}={value}" for key, value in settings.items() if key in groups and isinstance(value, str)]
    with initialize_config_dir(version_base="1.3", config_dir=str(CONFIG_DIR)):
        config = compose(command, overrides=chosen)
    for key, value in settings.items():
        if key not in config:
            guess = "".join(f"; did you mean {near}?" for near in closest(key, [str(name) for name in config]))
            raise UserError(f"kd_mil.{command} has no setting {key}{guess}")
        if not (key in groups and isinstance(value, str)):
            OmegaConf.update(config, key, value)
    return config


def plain(value: Any) -> Any:
    """Paths as text, within lists, too."""
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value
