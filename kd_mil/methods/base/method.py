"""What all methods share: manual steps, and epochs that are functions of (seed, epoch)."""

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any, cast

import lightning as L
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from kd_mil.core.errors import UserError

OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]
ModuleFactory = Callable[..., nn.Module]


class Method(L.LightningModule):
    """Base of every method. A method says what it trains on, how it steps, and what selects its checkpoint.

    Args:
        optimizer: makes an optimiser for one part's parameters.
        gradient_clip: largest norm of the gradient of each part, None for no limit.
        seed: seed of everything random in training; with the epoch number and the rank it fixes each epoch.
    """

    roles: tuple[str, ...] = ("model",)
    selected_by: str = "validation labels"
    """What the monitor reads; noted in the record of the run."""

    def __init__(self, optimizer: OptimizerFactory, gradient_clip: float | None = None, seed: int = 0) -> None:
        super().__init__()
        if gradient_clip is not None and gradient_clip <= 0:
            raise UserError(f"method.gradient_clip={gradient_clip}: must be positive, or null for no limit")
        self.automatic_optimization = False
        self.new_optimizer, self.gradient_clip, self.seed = optimizer, gradient_clip, seed
        self.model_card: dict[str, Any] = {}
        self.exact_scores: dict[str, float] = {}
        """Scores of the last evaluation in double precision; Lightning rounds what it logs to single."""

    @property
    def default_monitor(self) -> str:
        """Validation metric that selects the checkpoint unless the user names one."""
        raise NotImplementedError

    def check_monitor(self, monitor: str) -> None:
        """Refuse a monitor that may not select; raises `UserError`."""
        raise NotImplementedError

    def parts(self) -> list[nn.Module]:
        """The networks that are trained, each with an optimiser of its own."""
        raise NotImplementedError

    @property
    def phase_starts(self) -> list[int]:
        """Epochs in which a phase of training begins, ascending from 0."""
        return [0]

    @property
    def phase_progress(self) -> float:
        """Share of the present phase that is over, in [0, 1)."""
        total = cast(int, self.trainer.max_epochs)
        bounds = [start for start in self.phase_starts if start < total] + [total]
        begin, end = next(pair for pair in pairwise(bounds) if self.current_epoch < pair[1])
        return (self.current_epoch - begin) / (end - begin)

    def configure_optimizers(self) -> list[Optimizer]:
        return [self.new_optimizer(part.parameters()) for part in self.parts()]

    def optimizer_list(self) -> list[Any]:
        """The wrapped optimisers, in the order of `parts`: only what Lightning returns may step."""
        optimizers = self.optimizers()
        return optimizers if isinstance(optimizers, list) else [optimizers]

    def step_optimizers(self, loss: Tensor, *optimizers: Any) -> None:
        """One update: the given optimisers step on the loss, nothing else moves."""
        for optimizer in optimizers:
            optimizer.zero_grad()
        self.manual_backward(loss)
        self.step(*optimizers)

    def step(self, *optimizers: Any) -> None:
        """Clip the gradients that are there and let the optimisers step."""
        for optimizer in optimizers:
            if self.gradient_clip is not None:
                self.clip_gradients(optimizer, gradient_clip_val=self.gradient_clip, gradient_clip_algorithm="norm")
            optimizer.step()

    def log_loss(self, name: str, loss: Tensor, batch_size: int) -> None:
        """Log a training loss as its mean over the epoch."""
        self.log(f"loss/{name}", loss.detach(), on_step=False, on_epoch=True, batch_size=batch_size)

    def on_train_epoch_start(self) -> None:
        """Dropout and augmentation depend on (seed, epoch, rank) alone, so a resumed epoch repeats exactly."""
        torch.manual_seed((self.seed * 1_000_003 + self.current_epoch) * 1009 + self.global_rank)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["model_card"] = self.model_card

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Count the epoch that the checkpoint ends as completed.

        Lightning does so after it has written the checkpoint, and when it resumes, after it has asked a loader without
        a length for its first batch: that epoch would show the batches, and the phase, of the one before.
        """
        if "loops" in checkpoint:
            progress = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]
            progress["completed"] = progress["processed"]
