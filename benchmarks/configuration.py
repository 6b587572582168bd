"""Training as the real commands have it, so that what is measured is what users run."""

import contextlib
import io

import lightning as L
from hydra.utils import instantiate
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import Checkpoint
from omegaconf import DictConfig

from kd_mil.cli.command import silence_known_warnings
from kd_mil.data.datamodules import BagDataModule
from kd_mil.jobs.before_training import choose_monitor
from kd_mil.jobs.run import build_trainer


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
