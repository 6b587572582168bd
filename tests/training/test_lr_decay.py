"""Learning rates that fall within each phase."""

import math
from types import SimpleNamespace

import pytest
import torch

from kd_mil.core.errors import UserError
from kd_mil.training.lr_decay import LearningRateDecay
from tests.support.methods import make_d2l, quiet_trainer
from tests.support.tiny import TinyData, tiny_splits


def optimizer(*rates):
    return torch.optim.SGD([{"params": [torch.zeros(1)], "lr": rate} for rate in rates])


def rates_of(optimizer):
    return [group["lr"] for group in optimizer.param_groups]


def test_half_a_cosine():
    decay, both = LearningRateDecay("cosine"), optimizer(0.4, 0.1)
    trainer = SimpleNamespace(optimizers=[both])
    for progress, factor in ((0.0, 1.0), (1 / 3, 0.75), (0.5, 0.5), (2 / 3, 0.25), (0.0, 1.0)):
        decay.on_train_epoch_start(trainer, SimpleNamespace(phase_progress=progress))
        assert rates_of(both) == pytest.approx([0.4 * factor, 0.1 * factor])


def test_without_decay_a_run_goes_on_at_the_full_rate():
    rates = optimizer(0.4)
    trainer = SimpleNamespace(optimizers=[rates])
    LearningRateDecay("cosine").on_train_epoch_start(trainer, SimpleNamespace(phase_progress=0.9))
    assert rates_of(rates)[0] < 0.02
    LearningRateDecay("none").on_train_epoch_start(trainer, SimpleNamespace(phase_progress=0.95))
    assert rates_of(rates) == [0.4]


def test_no_decay_unless_asked_for():
    fixed = optimizer(0.4)
    LearningRateDecay().on_train_epoch_start(SimpleNamespace(optimizers=[fixed]), SimpleNamespace(phase_progress=0.9))
    assert rates_of(fixed) == [0.4]


def test_every_phase_starts_at_the_full_rate():
    """Distill-to-Label: two epochs of the teacher, then two rounds of four of the student."""
    seen = []

    class Rates(LearningRateDecay):
        def on_train_epoch_end(self, trainer, pl_module):
            seen.append([rates_of(optimizer)[0] for optimizer in trainer.optimizers])

    model = make_d2l(teacher_epochs=2, student_epochs=4, rounds=2)
    full = model.configure_optimizers()[0].param_groups[0]["lr"]
    data = TinyData(tiny_splits(), bags_per_step=2)
    quiet_trainer(max_epochs=10, callbacks=[Rates("cosine")]).fit(model, datamodule=data)
    quarters = [0.5 * (1 + math.cos(math.pi * quarter / 4)) for quarter in range(4)]
    assert [teacher / full for teacher, _ in seen[:2]] == pytest.approx([1.0, 0.5])
    assert [student / full for _, student in seen[2:]] == pytest.approx(2 * quarters)


def test_impossible_decay_is_refused():
    with pytest.raises(UserError, match="lr_decay=linear: choose none or cosine"):
        LearningRateDecay("linear")
    with pytest.raises(UserError, match=r"lr_decay=cosine needs trainer\.max_epochs"):
        LearningRateDecay("cosine").on_fit_start(SimpleNamespace(max_epochs=-1), SimpleNamespace())
