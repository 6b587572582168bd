import math

import pytest
import torch

from kd_mil.methods.base.bag_method import aggregator_loss
from kd_mil.models.aggregators.pooling import Max, Mean, positive_margin


def test_mean_by_hand():
    model = Mean(2)
    output = model(torch.tensor([[1.0, 2], [3, 6], [5, 5]]), torch.tensor([2, 1]))
    assert output.embedding.tolist() == [[2, 4], [5, 5]]
    torch.testing.assert_close(output.bag_logits, model.classifier(torch.tensor([[2.0, 4], [5, 5]])))
    assert output.attention.tolist() == [0.5, 0.5, 1]
    assert output.attention_logits.tolist() == [0, 0, 0]
    assert output.instance_logits is None


def max_with_identity_classifier(classes):
    model = Max(classes, classes)
    model.classifier.weight.data = torch.eye(classes)
    model.classifier.bias.data.zero_()
    return model


def test_max_takes_the_instance_with_the_largest_margin():
    """Not the one with the largest positive logit: 5 - 4 is less than 2 - 0."""
    features = torch.tensor([[4.0, 5], [0, 2], [1, 1], [7, 3]])
    output = max_with_identity_classifier(2)(features, torch.tensor([3, 1]))
    assert output.bag_logits.tolist() == [[0, 2], [7, 3]]
    assert output.attention_logits.tolist() == [1, 2, 0, -4]
    assert output.attention.tolist() == [0, 1, 0, 1]
    assert output.embedding.tolist() == [[0, 2], [7, 3]]
    assert output.instance_logits is None


def test_margin_of_several_classes_is_that_of_the_strongest_positive_one():
    assert positive_margin(torch.tensor([[1.0, 0, 4], [1, 3, -9]])).tolist() == [3, 2]
    features = torch.tensor([[9.0, 9, 0], [0, 0, 1]])
    output = max_with_identity_classifier(3)(features, torch.tensor([2]))
    assert output.attention.tolist() == [0, 1]


def test_max_trains_on_the_critical_instance_alone():
    model, features = Max(2), torch.randn(4, 2, requires_grad=True)
    output = model(features, torch.tensor([4]))
    output.bag_logits.sum().backward()
    assert ((features.grad != 0).any(1) == (output.attention == 1)).all()


def test_the_loss_of_max_is_that_of_the_critical_instance():
    """The first instance has the larger positive logit, the second the larger margin: cross-entropy of (0, 2)."""
    features, sizes = torch.tensor([[4.0, 5], [0, 2]], requires_grad=True), torch.tensor([2])
    loss = aggregator_loss(max_with_identity_classifier(2)(features, sizes), torch.tensor([1]), sizes, 0.5)
    assert loss.item() == pytest.approx(math.log1p(math.exp(-2)))
    loss.backward()
    assert features.grad[0].tolist() == [0, 0]
