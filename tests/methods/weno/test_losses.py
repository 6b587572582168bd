"""WENO's two formulas against values worked out on paper and against the formula as the paper prints it."""

import math

import pytest
import torch

from kd_mil.methods.base.attention_memory import attention_pseudo_labels
from kd_mil.methods.weno.losses import student_loss


def test_pseudo_labels_by_hand():
    """Eq. 13 with range [-1, 3]: bottom, middle, a negative bag, and a score above the range."""
    scores = torch.tensor([-1.0, 1.0, 3.0, 5.0])
    labels = attention_pseudo_labels(scores, torch.tensor([1, 1, 0, 1]), torch.tensor(-1.0), torch.tensor(3.0))
    torch.testing.assert_close(labels, torch.tensor([0.0, 0.5, 0.0, 1.0]))


def test_pseudo_labels_with_a_range_per_instance():
    """Normalised bag by bag: the same score means more in a bag of low scores."""
    low, high = torch.tensor([0.0, 0.0]), torch.tensor([2.0, 4.0])
    labels = attention_pseudo_labels(torch.ones(2), torch.ones(2, dtype=torch.long), low, high)
    assert labels.tolist() == [0.5, 0.25]


def test_pseudo_labels_survive_a_constant_teacher():
    """A range of width zero must not divide by zero."""
    labels = attention_pseudo_labels(torch.full((3,), 0.3), torch.ones(3), torch.tensor(0.3), torch.tensor(0.3))
    assert labels.tolist() == [0.0, 0.0, 0.0]


def test_student_loss_by_hand():
    """A positive with q1 = 3/4 and a negative with q0 = 1/2, equal weights: -(ln 3/4 + ln 1/2) / 4."""
    logits = torch.tensor([[0.0, math.log(3.0)], [0.0, 0.0]])
    loss = student_loss(logits, torch.tensor([1.0, 0.0]))
    assert loss.item() == pytest.approx(-(math.log(0.75) + math.log(0.5)) / 4)


@pytest.mark.parametrize("negative_weight", [0.1, 0.2, 0.5, 0.9])
def test_student_loss_is_the_released_formula(negative_weight):
    """The released loss spells out softmax and adds 1e-5 inside the logarithms; both agree to that order."""
    generator = torch.Generator().manual_seed(0)
    logits, targets = torch.randn(50, 2, generator=generator), torch.rand(50, generator=generator)
    q0, q1 = logits.softmax(1).unbind(1)
    terms = negative_weight * (1 - targets) * (q0 + 1e-5).log() + (1 - negative_weight) * targets * (q1 + 1e-5).log()
    torch.testing.assert_close(student_loss(logits, targets, negative_weight), -terms.mean(), atol=1e-4, rtol=1e-4)


def test_student_loss_does_not_saturate():
    """A confidently wrong student still gets a gradient: softmax and logarithm stay fused."""
    logits = torch.tensor([[200.0, -200.0]], requires_grad=True)
    loss = student_loss(logits, torch.tensor([1.0]))
    loss.backward()
    assert loss.item() == pytest.approx(200.0)
    assert logits.grad.abs().sum() > 0.5


def test_a_bag_of_one_is_its_own_certain_positive():
    """With the bag's own range, an instance that is alone (or like all others) inherits the label of its bag."""
    scores, labels = torch.tensor([0.3, -2.0, 0.1, 0.5]), torch.tensor([1, 0, 1, 1])
    low, high = torch.tensor([0.3, -2.0, 0.1, 0.1]), torch.tensor([0.3, -2.0, 0.5, 0.5])
    assert attention_pseudo_labels(scores, labels, low, high, range_of_bag=True).tolist() == [1, 0, 0, 1]
    assert attention_pseudo_labels(scores, labels, low, high).tolist() == [0, 0, 0, 1]
