"""A run ends where validation stops getting better, exactly so when it is resumed, and never by default."""

import math

import pytest
import torch

from kd_mil.core.errors import UserError
from kd_mil.methods.baselines.mil import MIL
from kd_mil.training.early_stopping import StopEarly
from tests.support.tiny import TinyData, fit, tiny_abmil, tiny_parts, tiny_splits

LOSSES = [1.0, 0.8, math.nan, 0.9, 0.7, 0.7, 0.75, 0.6, 0.5]
"""By epoch: best at 4, then two that are no better."""


class Scripted(MIL):
    """Its validation loss is written down."""

    def on_validation_epoch_end(self) -> None:
        super().on_validation_epoch_end()
        self.log("val/model/scripted", torch.tensor(LOSSES[self.current_epoch]))


def run(
    epochs: int = 9, start: str | None = None, patience: int | None = 2, **trainer: object
) -> tuple[int, StopEarly]:
    stopping = StopEarly(patience, "val/model/scripted", "min")
    method = Scripted(**tiny_parts(), aggregator=tiny_abmil())
    runner = fit(method, TinyData(tiny_splits()), epochs, start, callbacks=[stopping], **trainer)
    return runner.current_epoch, stopping


def test_it_stops_after_so_many_epochs_without_a_better_one():
    """Epochs 5 and 6 are no better than 4; the undefined one counts for nothing."""
    epochs, stopping = run()
    assert epochs == 7
    assert (stopping.best, stopping.waited) == (pytest.approx(0.7), 2)


def test_a_resumed_run_stops_where_the_whole_one_does(tmp_path):
    stopping = StopEarly(2, "val/model/scripted", "min")
    method = Scripted(**tiny_parts(), aggregator=tiny_abmil())
    first = fit(method, TinyData(tiny_splits()), 6, callbacks=[stopping])
    first.save_checkpoint(tmp_path / "last.ckpt")
    assert stopping.waited == 1
    assert run(start=tmp_path / "last.ckpt")[0] == 7


def test_without_patience_all_epochs_are_trained():
    assert run(patience=None)[0] == 9


def test_a_patience_is_at_least_one():
    with pytest.raises(UserError, match=r"early_stopping.patience=0: must be at least 1"):
        StopEarly(0, "val/model/bag_loss", "min")
