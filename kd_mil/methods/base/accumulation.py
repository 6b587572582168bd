"""Several steps on bags that make one update: the update of one larger step, in the memory of a small one."""

from typing import Any

from torch import Tensor

from kd_mil.core.checks import at_least
from kd_mil.core.errors import UserError
from kd_mil.data.batches import BagBatch
from kd_mil.methods.base.method import Method


class AccumulatingMethod(Method):
    """A method whose steps on bags may be gathered: `accumulate_bags` of them share one update.

    Gradients are means over the steps gathered. What is left at the end of a view of an epoch makes an update of its
    own, so that an epoch ends with nothing held and resumes exactly. Steps on instances are not gathered.
    """

    accumulate_bags = 1
    """Steps on bags in one update; 1 steps each time."""
    _on_bags, _held = False, 0
    _waiting: tuple[Any, ...] = ()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self._on_bags = isinstance(batch, BagBatch)
        if not self._on_bags:
            self.update_with_held()

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        super().on_train_batch_end(outputs, batch, batch_idx)
        if self.trainer.is_last_batch:
            self.update_with_held()

    def step_optimizers(self, loss: Tensor, *optimizers: Any) -> None:
        """As in `Method`, once in `accumulate_bags` steps on bags."""
        if self.accumulate_bags == 1 or not self._on_bags:
            super().step_optimizers(loss, *optimizers)
            return
        if not self._held:
            for optimizer in optimizers:
                optimizer.zero_grad()
        self.manual_backward(loss / self.accumulate_bags)
        self._held, self._waiting = self._held + 1, optimizers
        if self._held == self.accumulate_bags:
            self.update_with_held()

    def update_with_held(self) -> None:
        """The update of the steps that were gathered, by the mean of their gradients; nothing where there are none."""
        if not self._held:
            return
        for optimizer in self._waiting:
            for group in optimizer.param_groups:
                for weights in group["params"]:
                    if weights.grad is not None:
                        weights.grad.mul_(self.accumulate_bags / self._held)
        self._held = 0
        self.step(*self._waiting)


def gather_steps(method: Method, steps: int) -> None:
    """Let so many steps on bags share an update.

    Raises:
        UserError: fewer than one, or a method that trains on no bags.
    """
    at_least("accumulate_bags", steps, 1)
    if isinstance(method, AccumulatingMethod):
        method.accumulate_bags = steps
    elif steps != 1:
        raise UserError(f"accumulate_bags={steps}: {type(method).__name__} trains on no bags, leave it out")
