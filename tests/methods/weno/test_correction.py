"""Labels that a confident student corrects, by hand."""

import pytest
import torch

from kd_mil.core.errors import UserError
from kd_mil.methods.weno.correction import LabelCorrection, hardened
from kd_mil.methods.weno.ramp import ramped

LABELS = torch.tensor([0.9, 0.1, 0.3, 0.7, 0.0])
BAGS = torch.tensor([1, 1, 1, 1, 0])
LOGITS = torch.tensor([[0.0, -2.0], [0.0, 3.0], [0.0, 1.0], [0.0, -1.0], [0.0, 9.0]])
"""The student ranks the four instances of positive bags 1, 2, 3, 0, and is wrong about the negative bag."""


def test_half_of_the_label_is_the_students_word_at_the_rate_of_the_labels():
    """The mean label of positive bags is .5: the two instances that the student ranks highest are called positive."""
    found = LabelCorrection(weight=0.5, ramp=0).corrected(LABELS, LOGITS, BAGS, epoch=0, run_epochs=None)
    torch.testing.assert_close(found, torch.tensor([0.45, 0.55, 0.65, 0.35, 0.0]))


def test_the_word_grows_from_nothing():
    """Epoch 1 of 10 with a ramp of .2 has half of the weight."""
    correction = LabelCorrection(weight=0.5, ramp=0.2)
    assert correction.corrected(LABELS, LOGITS, BAGS, epoch=0, run_epochs=10) is LABELS
    found = correction.corrected(LABELS, LOGITS, BAGS, epoch=1, run_epochs=10)
    torch.testing.assert_close(found, torch.tensor([0.675, 0.325, 0.475, 0.525, 0.0]))


def test_a_step_without_positive_bags_is_left_alone():
    labels = torch.zeros(5)
    found = LabelCorrection(weight=0.5, ramp=0).corrected(labels, LOGITS, torch.zeros_like(BAGS), 0, None)
    assert found.equal(labels)


@pytest.mark.parametrize(("positive", "count"), [(0.0, 1), (0.25, 3), (0.5, 5), (1.0, 10)])
def test_the_share_above_the_quantile(positive, count):
    """Of ten scores the highest is always reached; the quantile lies between scores otherwise."""
    assert int(hardened(torch.arange(10.0), torch.arange(10.0), positive).sum()) == count


@pytest.mark.parametrize(
    ("epoch", "ramp", "expected"), [(0, 0.5, 0.0), (2, 0.5, 0.8), (5, 0.5, 2.0), (9, 0.5, 2.0), (0, 0.0, 2.0)]
)
def test_ramp(epoch, ramp, expected):
    assert ramped(2.0, ramp, epoch, 10, "method.x") == pytest.approx(expected)


def test_a_ramp_needs_an_end():
    assert ramped(0.0, 0.1, 3, None, "method.x") == 0
    with pytest.raises(UserError, match=r"method\.x\.ramp=0\.1 needs trainer\.max_epochs"):
        ramped(0.5, 0.1, 3, -1, "method.x")


@pytest.mark.parametrize("settings", [{"weight": 1.5}, {"weight": -0.1}, {"ramp": 2}])
def test_shares_outside_their_range_are_refused(settings):
    with pytest.raises(UserError, match=f"method.correction.{next(iter(settings))}"):
        LabelCorrection(**settings)
