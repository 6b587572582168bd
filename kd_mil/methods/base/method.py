"""Base of all methods: manual steps, epochs that are functions of (seed, epoch), phases, and evaluation of roles."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from kd_mil.core.errors import UserError
from kd_mil.evaluation.metrics import Scores
from kd_mil.methods.base.carded_module import CardedModule
from kd_mil.methods.base.phases import UNDIVIDED, Phases

OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]
ModuleFactory = Callable[..., nn.Module]


class Method(CardedModule):
    """Base of every method. A method says what it trains on, how it steps, and what selects its checkpoint.

    Args:
        optimizer: makes an optimiser for one part's parameters.
        gradient_clip: largest norm of the gradient of each part, None for no limit.
        seed: seed of everything random in training; with the epoch number it fixes each epoch.

    Raises:
        UserError: a gradient_clip that is not positive.
    """

    roles: tuple[str, ...] = ("model",)
    """Networks that are evaluated, each under its name; of a class, all that its methods can have."""
    monitors: tuple[str, ...] = ()
    """Metrics that may select the checkpoint of some role, for some data; `selectable` knows more once it is built."""
    phases: Phases = UNDIVIDED
    trains_on: str = "bags"
    """Kind of data: `bags`, `images with masks` or `pairs of images`, as `kind` of a data module says it."""
    units: str = "bags"
    """What validation counts, in messages: `bags` or `images`."""
    selected_by: str = "validation labels"
    """What the monitor reads; noted in the record of the run."""

    def __init__(self, optimizer: OptimizerFactory, gradient_clip: float | None = None, seed: int = 0) -> None:
        super().__init__()
        if gradient_clip is not None and gradient_clip <= 0:
            raise UserError(f"method.gradient_clip={gradient_clip}: must be positive, or null for no limit")
        self.automatic_optimization = False
        self.new_optimizer, self.gradient_clip, self.seed = optimizer, gradient_clip, seed
        self.run_epochs: int | None = None
        """Epochs of the run, known once it starts; None or -1 where it has no end."""
        self.tables: dict[str, Any] = {}
        """Predictions of the last evaluation of each stage, `val` and `test`: every row of the split once."""
        self.scores: dict[str, dict[str, Scores]] = {}
        """Scores of the last evaluation by stage, role and metric, in double precision."""
        self._losses: dict[str, tuple[Tensor | float, int]] = {}
        """Sum over the rows of this epoch, and their number, by name."""

    # ---- what a method says of itself

    def parts(self) -> list[nn.Module]:
        """The networks that are trained, each with an optimiser of its own."""
        raise NotImplementedError

    @property
    def default_monitor(self) -> str:
        """Validation metric that selects the checkpoint unless the user names one."""
        raise NotImplementedError

    def selectable(self, role: str) -> tuple[str, ...]:
        """Metrics of a role that may select the checkpoint."""
        raise NotImplementedError

    def collect(self, batch: Any) -> None:
        """Keep what each role predicts for a batch of validation or test data."""
        raise NotImplementedError

    def gather(self) -> Any:
        """The table of all that was collected, on every rank, and forget it."""
        raise NotImplementedError

    def score_role(self, stage: str, role: str) -> Scores | None:
        """Scores of a role from `tables[stage]`; None where it does not predict yet."""
        raise NotImplementedError

    # ---- training

    def setup(self, stage: str) -> None:
        """Decide how many epochs the run has; raises `UserError` where they do not suit the phases."""
        super().setup(stage)
        if stage == "fit":
            self.run_epochs = self.phases.run_epochs(self.trainer.max_epochs)
            self.trainer.fit_loop.max_epochs = self.run_epochs

    def shorten_phases(self, epochs: int) -> None:
        """Give each phase that many epochs, so that a debugging run goes through all of them."""
        self.phases = self.phases.each_of(epochs)

    @property
    def phase(self) -> str:
        """Name of the phase of the present epoch."""
        return self.phases.name(self.current_epoch)

    @property
    def phase_progress(self) -> float:
        """Share of the present phase that is over, in [0, 1)."""
        return self.phases.progress(self.current_epoch, cast(int, self.trainer.max_epochs))

    @property
    def fitting(self) -> bool:
        """Whether a run trains, not counting Lightning's check of the validation loop before it does."""
        return self.trainer.state.fn == "fit" and not self.trainer.sanity_checking

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
                weights = [one for group in optimizer.param_groups for one in group["params"]]
                nn.utils.clip_grad_norm_(weights, self.gradient_clip)  # Lightning refuses to clip for fused optimisers
            optimizer.step()

    def log_loss(self, role: str, loss: Tensor, batch_size: int, **terms: Tensor) -> None:
        """Log the training loss of a role as `loss/ROLE`, and its terms as `terms/ROLE_TERM`.

        Means over the epoch, of what all ranks know: the loss of the whole step. They are handed to Lightning once an
        epoch: its `log` takes processor time in every step.
        """
        values = {f"loss/{role}": loss} | {f"terms/{role}_{name}": term for name, term in terms.items()}
        for name, value in values.items():
            total, rows = self._losses.get(name, (0.0, 0))
            self._losses[name] = total + value.detach().float() * batch_size, rows + batch_size

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.trainer.is_last_batch:
            for name, (total, rows) in self._losses.items():
                mean = total / max(rows, 1)
                self.log(name, mean, on_step=False, on_epoch=True, sync_dist=True, batch_size=rows)

    def on_train_epoch_start(self) -> None:
        """Dropout and augmentation depend on (seed, epoch) alone, so a resumed epoch repeats exactly, on any ranks."""
        self._losses.clear()
        torch.manual_seed((self.seed * 1_000_003 + self.current_epoch) * 1009)

    # ---- evaluation

    def check_monitor(self, monitor: str) -> None:
        """Refuse to select by anything but the validation metrics of the method.

        Raises:
            UserError: naming the form a monitor has, and the metrics.
        """
        role = [*monitor.split("/", 2), ""][1]
        known = self.selectable(role if role in self.roles else self.roles[-1])
        refuse_monitor(monitor, self.units, self.roles, known)

    @classmethod
    def check_monitor_early(cls, monitor: str) -> None:
        """Refuse, before data are built, what no method of this class is selected by.

        Raises:
            UserError: as `check_monitor`.
        """
        if cls.monitors:
            refuse_monitor(monitor, cls.units, cls.roles, cls.monitors)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.collect(batch)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.collect(batch)

    def on_validation_epoch_end(self) -> None:
        self._score("val")

    def on_test_epoch_end(self) -> None:
        self._score("test")

    def _score(self, stage: str) -> None:
        """Score each role on all rows of a stage, and log it; undefined scores select no checkpoint."""
        self.tables[stage] = self.gather()
        found = {role: self.score_role(stage, role) for role in self.roles}
        undefined = dict.fromkeys(next(scores for scores in found.values() if scores), math.nan)
        self.scores[stage] = {role: undefined if scores is None else scores for role, scores in found.items()}
        for role, scores in self.scores[stage].items():
            self.log_dict({f"{stage}/{role}/{name}": value for name, value in scores.items()}, batch_size=1)

    @property
    def exact_scores(self) -> Scores:
        """Scores of the last evaluations by metric key in double precision; Lightning rounds what it logs to single."""
        return {
            f"{stage}/{role}/{name}": value
            for stage, by_role in self.scores.items()
            for role, scores in by_role.items()
            for name, value in scores.items()
        }

    # ---- checkpoints

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Count the epoch that the checkpoint ends as completed.

        Lightning does so after it has written the checkpoint, and when it resumes, after it has asked a loader without
        a length for its first batch: that epoch would show the batches, and the phase, of the one before.
        """
        if "loops" in checkpoint:
            progress = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]
            progress["completed"] = progress["processed"]


def refuse_monitor(monitor: str, units: str, roles: Sequence[str], metrics: Sequence[str]) -> None:
    """Refuse what is no `val/ROLE/METRIC` of these roles and metrics.

    Raises:
        UserError: naming the form a monitor has, and the metrics.
    """
    stage, role, metric = [*monitor.split("/", 2), "", ""][:3]
    if stage != "val" or role not in roles or metric not in metrics:
        raise UserError(
            f"monitor={monitor}: selection reads validation {units} only, as val/ROLE/METRIC with ROLE one "
            f"of {', '.join(roles)} and METRIC one of {', '.join(metrics)}"
        )


def refuse_nan(role: str, probs: Tensor) -> None:
    """Tell a diverged run from a bad one; raises `UserError` where a probability is not finite."""
    if not probs.isfinite().all():
        raise UserError(f"training diverged, the {role} predicts NaN: lower optimizer.lr")
