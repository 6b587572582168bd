"""What every method inherits: losses are means over the rows of all ranks."""

from functools import partial

import pytest
import torch
from lightning.pytorch.strategies import SingleDeviceStrategy

from kd_mil.methods.base.method import Method
from tests.support.tiny import TinyData, fit, tiny_splits


class BesideAnotherRank(SingleDeviceStrategy):
    """One process whose sums over ranks find another rank that logged a loss of 2 for each of 30 rows."""

    is_distributed = True

    def reduce(self, tensor, *args, **kwargs):
        return tensor + (2.0 * 30 if tensor.is_floating_point() else 30)


class LogsOnly(Method):
    """Its loss is 1 in every step, for two rows; nothing moves."""

    def __init__(self):
        super().__init__(partial(torch.optim.SGD, lr=1))
        self.layer = torch.nn.Linear(1, 1)

    def parts(self):
        return [self.layer]

    def training_step(self, batch, batch_idx):
        self.log_loss("model", torch.tensor(1.0), 2, smoothness=torch.tensor(3.0))


def test_a_logged_loss_is_the_mean_over_the_rows_of_all_ranks():
    """By hand, 12 steps of 2 rows here: (24 x 1 + 30 x 2) / 54, and (24 x 3 + 30 x 2) / 54 for a term of it."""
    trainer = fit(LogsOnly(), TinyData(tiny_splits()), strategy=BesideAnotherRank("cpu"), limit_val_batches=0)
    assert trainer.callback_metrics["loss/model"].item() == pytest.approx(84 / 54)
    assert trainer.callback_metrics["terms/model_smoothness"].item() == pytest.approx(132 / 54)


class LossOfTheEpoch(LogsOnly):
    """Its loss is the number of the epoch, from 1, plus 0 for 2 rows and 1 for 6 in turns."""

    def training_step(self, batch, batch_idx):
        more = batch_idx % 2
        self.log_loss("model", torch.tensor(1.0 + self.current_epoch + more), 2 + 4 * more)


def test_a_logged_loss_is_that_of_the_last_epoch_by_rows():
    """By hand, 12 steps: (6 x 2 x 3 + 6 x 6 x 4) / 48 in the third epoch."""
    trainer = fit(LossOfTheEpoch(), TinyData(tiny_splits()), epochs=3, limit_val_batches=0)
    assert trainer.callback_metrics["loss/model"].item() == pytest.approx(180 / 48)
