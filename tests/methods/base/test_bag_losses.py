"""Bag loss and supervised loss against hand values."""

import math

import pytest
import torch

from kd_mil.methods.base.bag_losses import bag_loss, labelled_instance_loss


def test_bag_loss_by_hand():
    """Two bags at probability 3/4 and 1/2 of their labels."""
    logits = torch.tensor([[0.0, math.log(3.0)], [0.0, 0.0]])
    expected = -(math.log(0.75) + math.log(0.5)) / 2
    assert bag_loss(logits, torch.tensor([1, 0])).item() == pytest.approx(expected)


def test_two_streams_are_mixed_by_weight():
    """DSMIL: 0.5 bag stream + 0.5 critical instance; other weights move between the two."""
    bag, critical = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, math.log(3.0)]])
    label = torch.tensor([1])
    even = -(0.5 * math.log(0.5) + 0.5 * math.log(0.75))
    assert bag_loss(bag, label, critical).item() == pytest.approx(even)
    assert bag_loss(bag, label, critical, instance_stream_weight=0.0).item() == pytest.approx(-math.log(0.5))


def test_supervised_loss_ignores_unknown_labels():
    logits = torch.tensor([[0.0, 0.0], [5.0, -5.0], [0.0, math.log(3.0)]])
    loss = labelled_instance_loss(logits, torch.tensor([0, -1, 1]))
    assert loss.item() == pytest.approx(-(math.log(0.5) + math.log(0.75)) / 2)


def test_supervised_loss_without_any_label_is_zero_and_has_a_backward():
    """A rank without a labelled instance must still take part in the backward pass."""
    logits = torch.randn(4, 2, requires_grad=True)
    loss = labelled_instance_loss(logits, torch.full((4,), -1))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.abs().sum() == 0
