"""Learning rates that fall within each phase."""

import math
from types import SimpleNamespace

import pytest
import torch

from kd_mil.core.errors import UserError
from kd_mil.methods.base.method import Method
from kd_mil.methods.baselines.rnn_mil import RNNMIL
from kd_mil.methods.distill_to_label.distill_to_label import DistillToLabel
from kd_mil.methods.ifkd.ifkd import IFKD
from kd_mil.methods.resolution.resolution import Phase, Resolution
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


@pytest.mark.parametrize(
    ("starts", "total", "progress"),
    [
        ([0], 4, [0, 1 / 4, 2 / 4, 3 / 4]),
        ([0, 1], 4, [0, 0, 1 / 3, 2 / 3]),
        ([0, 2, 3], 5, [0, 1 / 2, 0, 0, 1 / 2]),
        ([0, 2, 9], 3, [0, 1 / 2, 0]),  # ends before its last phase
    ],
)
def test_progress_in_phases(starts, total, progress):
    class Phased(Method):
        phase_starts = starts
        current_epoch = 0
        trainer = SimpleNamespace(max_epochs=total)

    method = Phased(optimizer)
    for epoch, expected in enumerate(progress):
        Phased.current_epoch = epoch
        assert method.phase_progress == pytest.approx(expected)


def test_phases_of_every_method_that_has_some():
    ifkd = SimpleNamespace(teacher_epochs=30)
    assert IFKD.phase_starts.fget(ifkd) == [0, 30]
    assert RNNMIL.phase_starts.fget(SimpleNamespace(rnn_start_epoch=7)) == [0, 7]
    phases = [Phase("teacher", 5), Phase("distil", 3), Phase("finetune", 2)]
    assert Resolution.phase_starts.fget(SimpleNamespace(phases=phases)) == [0, 5, 8]
    alone = SimpleNamespace(teacher_epochs=5, student_epochs=0, rounds=1)
    assert DistillToLabel.phase_starts.fget(alone) == [0]


def test_impossible_decay_is_refused():
    with pytest.raises(UserError, match="lr_decay=linear: choose none or cosine"):
        LearningRateDecay("linear")
    with pytest.raises(UserError, match=r"lr_decay=cosine needs trainer\.max_epochs"):
        LearningRateDecay("cosine").on_fit_start(SimpleNamespace(max_epochs=-1), SimpleNamespace())
