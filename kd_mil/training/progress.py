"""Progress: a bar over the steps of the epoch on a terminal, and one line of results per epoch everywhere."""

import sys
import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm
from torch import Tensor


class Progress(TQDMProgressBar):
    """Lightning's bar without its bars for evaluation, which flicker; where nobody watches (a log file), lines only.

    Args:
        refresh_rate: steps between redraws.
    """

    def __init__(self, refresh_rate: int = 5) -> None:
        super().__init__(refresh_rate=refresh_rate)
        self._started = 0.0
        self._earlier: dict[str, Tensor] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if not sys.stderr.isatty():
            self.disable()

    def init_validation_tqdm(self) -> Tqdm:
        return Tqdm(disable=True)

    def on_train_epoch_start(self, trainer: Trainer, *args: Any) -> None:
        super().on_train_epoch_start(trainer, *args)
        self._started = time.monotonic()
        self._earlier = dict(trainer.callback_metrics)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        metrics = dict(trainer.callback_metrics)  # on every rank: reading them is what reduces them over the ranks
        if trainer.is_global_zero:
            seconds = time.monotonic() - self._started
            of = "" if trainer.max_epochs in (None, -1) else f"/{trainer.max_epochs}"
            Tqdm.write(f"epoch {trainer.current_epoch + 1}{of}  {self._results(metrics)}  {seconds:.1f} s")

    def _results(self, every: dict[str, Tensor]) -> str:
        """Losses, then bag and instance AUROC on validation, roles side by side.

        Lightning keeps the last value of a loss that is computed no more: those of a phase that is over are left out,
        and so are roles that have not begun to train.
        """
        metrics = {key: value for key, value in every.items() if value is not self._earlier.get(key)}
        parts = [f"{key} {float(value):.4f}" for key, value in metrics.items() if key.startswith("loss/")]
        for level in ("bag", "instance", "image"):
            areas = [
                f"{key.split('/')[1]} {float(value):.3f}"
                for key, value in metrics.items()
                if key.startswith("val/") and key.split("/")[2:] == [f"{level}_auroc"] and value.isfinite()
            ]
            parts += [f"{level} AUROC {', '.join(areas)}"] if areas else []
        return "  ".join(parts)
