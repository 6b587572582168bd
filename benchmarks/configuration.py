"""Configuration and training as the real commands have them, so that what is measured is what users run."""

import contextlib
import io
from functools import cache
from pathlib import Path
from typing import Any

import lightning as L
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import Checkpoint
from omegaconf import DictConfig

from kd_mil.cli.command import CONFIG_DIR, silence_known_warnings
from kd_mil.cli.resolvers import register_resolvers
from kd_mil.data.datamodules import BagDataModule
from kd_mil.jobs.before_training import choose_monitor
from kd_mil.jobs.run import build_trainer


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


def train(config: DictConfig, data: BagDataModule, timer: Callback) -> None:
    """Train as `kd_mil.run` does, without checkpoints and with `timer` as the last callback; prints nothing."""
    silence_known_warnings()
    data.setup()
    L.seed_everything(config.seed, workers=True, verbose=False)
    method = instantiate(config.method, _convert_="all")(**data.model_inputs)
    choose_monitor(config, method)
    trainer = build_trainer(config)
    others = [callback for callback in trainer.callbacks if not isinstance(callback, Checkpoint)]  # type: ignore[attr-defined]
    trainer.callbacks = [*others, timer]  # type: ignore[attr-defined]
    with contextlib.redirect_stdout(io.StringIO()):
        trainer.fit(method, datamodule=data)
