"""What callbacks measured while a run trained, and its hyper-parameters with final metrics."""

import math
from typing import Any, cast

import lightning as L
from lightning.pytorch.loggers import TensorBoardLogger


def measured_while_training(trainer: L.Trainer, epoch: int) -> dict[str, float]:
    """What callbacks keep: of an epoch (from 1) as `by_epoch`, under `train/`, and as `costs`, under `cost/`."""
    callbacks: list[Any] = cast(Any, trainer).callbacks
    kept = {"train": [getattr(callback, "by_epoch", {}).get(epoch - 1, {}) for callback in callbacks]}
    kept["cost"] = [getattr(callback, "costs", {}) for callback in callbacks]
    return {f"{kind}/{name}": value for kind, every in kept.items() for one in every for name, value in one.items()}


def log_hyperparameters(trainer: L.Trainer, plain: dict[str, Any], metrics: dict[str, float]) -> None:
    """Hyper-parameters with final metrics on TensorBoard's HPARAMS page."""
    chosen = {key: plain[key] for key in ("experiment_name", "seed", "loading", "hpm", "optimizer", "data", "method")}
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            defined = {f"hp/{key}": value for key, value in metrics.items() if math.isfinite(value)}
            logger.log_hyperparams(chosen, defined)
            logger.finalize("success")
