"""What a confident student tells its teacher, by hand, and in training."""

import math

import pytest
import torch

from kd_mil.core.errors import UserError
from kd_mil.methods.weno.correction import LabelCorrection
from kd_mil.methods.weno.feedback import StudentFeedback
from kd_mil.methods.weno.mining import HardPositiveMining
from tests.support.methods import make_weno
from tests.support.tiny import TinyData, fit, tiny_splits

SIZES, LABELS = torch.tensor([3, 2, 2]), torch.tensor([1, 0, 1])
PROBS = torch.tensor([1.0, 0.5, 0.0, 0.99, 0.01, 0.4, 0.6])
"""Sure of two instances of the first bag, of both of the negative one, of none of the third."""


def test_divergence_over_what_the_student_is_sure_of():
    """Targets softmax(1/.5, 0/.5) against attention softmax(0, log 3) = (1/4, 3/4): the mean over three bags."""
    logits = torch.tensor([0.0, 7.0, math.log(3), 1.0, 2.0, 3.0, 4.0])
    p = math.exp(2) / (math.exp(2) + 1)
    expected = p * math.log(p / 0.25) + (1 - p) * math.log((1 - p) / 0.75)
    found = StudentFeedback(temperature=0.5).loss(logits, PROBS, SIZES, LABELS)
    assert float(found) == pytest.approx(expected / 3, rel=1e-6)


def test_gradient_draws_attention_to_sure_positives_alone():
    logits = torch.zeros(7, requires_grad=True)
    StudentFeedback().loss(logits, PROBS, SIZES, LABELS).backward()
    assert logits.grad[0] < 0 < logits.grad[2]
    assert logits.grad[[1, 3, 4, 5, 6]].eq(0).all()


def test_nothing_sure_is_a_loss_of_zero_with_a_gradient():
    logits = torch.zeros(7, requires_grad=True)
    loss = StudentFeedback().loss(logits, torch.full((7,), 0.5), SIZES, LABELS)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.eq(0).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weight": -1}, r"feedback\.weight"),
        ({"low": 0.6, "high": 0.5}, r"feedback\.low=0\.6 must be below"),
        ({"high": 1.1}, r"feedback\.high"),
        ({"temperature": 0}, r"feedback\.temperature"),
        ({"ramp": -0.1}, r"feedback\.ramp"),
    ],
)
def test_settings_outside_their_range_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        StudentFeedback(**settings)


@pytest.mark.parametrize("part", ["correction", "feedback"])
def test_each_part_changes_both_networks_after_the_first_epoch(part):
    """Weights grow from 0 over half of two epochs: the first is WENO's own, the second is not."""
    switch = {"correction": LabelCorrection(weight=0.5), "feedback": StudentFeedback(weight=1.0, low=0.5, high=0.51)}
    for epochs in (1, 2):
        models = [make_weno(norm=False), make_weno(norm=False, **{part: switch[part]})]
        for model in models:
            fit(model, TinyData(tiny_splits()), epochs=epochs)
        plain, changed = (torch.cat([weight.flatten() for weight in model.parameters()]) for model in models)
        assert plain.equal(changed) is (epochs == 1)


def test_with_mining_the_feedback_is_on_what_the_teacher_sees():
    hpm = HardPositiveMining(mode="top_fraction", fraction=0.4, start_epoch=0)
    model = make_weno(norm=False, hpm=hpm, feedback=StudentFeedback(weight=1.0, low=0.5, high=0.51, ramp=0))
    fit(model, TinyData(tiny_splits()))
    assert sum(len(ids) for ids in model.notes.dropped) > 0
    assert all(weight.isfinite().all() for weight in model.parameters())
