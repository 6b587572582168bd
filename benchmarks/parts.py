"""Configuration and parts of the real commands, without what runs them: an earlier commit has these, too."""

from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig

from kd_mil.cli.command import CONFIG_DIR
from kd_mil.cli.resolvers import register_resolvers


def configured(*overrides: str, run_dir: Path | str = "runs/benchmark") -> DictConfig:
    """The configuration of `python -m kd_mil.run` with these overrides, its files in `run_dir`."""
    register_resolvers()
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        config = compose("run", overrides=[f"hydra.runtime.output_dir={run_dir}", *overrides], return_hydra_config=True)
    HydraConfig.instance().set_config(config)
    return config


@cache
def part(group: str, choice: str) -> Any:
    """Factory of one part, such as `part("aggregator", "dsmil")`; it can be sent to another process."""
    return instantiate(configured(f"{group}={choice}")[group], _convert_="all")
