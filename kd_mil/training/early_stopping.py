"""Stop a run that no longer gets better on validation; off unless a patience is given."""

import math
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from kd_mil.core.checks import at_least, one_of


class StopEarly(Callback):
    """End training once so many epochs in a row were no better than the best by the monitor of the checkpoint.

    Epochs in which the monitor is undefined do not count: the student of a method with phases has not begun then. What
    was counted is kept in checkpoints, so that a resumed run stops where the uninterrupted one does.

    Args:
        patience: epochs; None = never.
        monitor: validation metric, that of the checkpoint.
        mode: `min` or `max`, what is better.

    Raises:
        UserError: a patience below 1, or an unknown mode.
    """

    def __init__(self, patience: int | None = None, monitor: str | None = None, mode: str | None = None) -> None:
        if patience is not None:
            at_least("early_stopping.patience", patience, 1)
            one_of("monitor_mode", mode, ("min", "max"))
        self.patience, self.monitor, self.mode = patience, monitor, mode
        self.best, self.waited = math.inf, 0

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.waited = state_dict["best"], state_dict["waited"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop_if_due(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.patience is None or trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        value = float(trainer.callback_metrics[str(self.monitor)])
        if math.isnan(value):
            return
        value = value if self.mode == "min" else -value
        self.best, self.waited = (value, 0) if value < self.best else (self.best, self.waited + 1)
        self._stop_if_due(trainer)

    def _stop_if_due(self, trainer: Trainer) -> None:
        if self.patience is not None and self.waited >= self.patience:
            trainer.should_stop = True
