"""Learning rates that fall within each phase of training."""

import math
from typing import cast

from lightning.pytorch import Callback, LightningModule, Trainer

from kd_mil.core.checks import one_of
from kd_mil.core.errors import UserError


class LearningRateDecay(Callback):
    """Multiply all learning rates by a function of how much of the phase is over, anew for each epoch.

    A rate is a function of the epoch alone, so a resumed run has the right one. In none of the papers.

    Args:
        shape: `none`, or `cosine`: from the optimiser's own rate along half a cosine towards 0.

    Raises:
        UserError: an unknown shape; or, once training starts, an end that is not known beforehand.
    """

    def __init__(self, shape: str = "none") -> None:
        one_of("lr_decay", shape, ("none", "cosine"))
        self.shape = shape

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.shape != "none" and (trainer.max_epochs is None or trainer.max_epochs < 1):
            raise UserError(f"lr_decay={self.shape} needs trainer.max_epochs")

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        progress = 0.0 if self.shape == "none" else cast(float, pl_module.phase_progress)
        factor = 0.5 * (1 + math.cos(math.pi * progress))
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = factor * group.setdefault("initial_lr", group["lr"])
