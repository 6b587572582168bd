"""run.json keeps up with the run, so that a killed one does not lose the time it has spent."""

from collections.abc import Callable
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class KeepTime(Callback):
    """Write the record of the run at the end of every epoch.

    Args:
        write: writes the record with a status.
    """

    def __init__(self, write: Callable[..., Any]) -> None:
        self.write = write

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            self.write("running", epochs=trainer.current_epoch + 1)
