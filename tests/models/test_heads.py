import pytest
import torch
from torch import nn

from kd_mil.core.errors import UserError
from kd_mil.models.heads import Dropout, InstanceHead, hidden_layers


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_released_student_has_its_published_size():
    assert count(InstanceHead(1728, hidden=(4096, 4096))) == 23_871_490


def test_linear_head_by_hand():
    head = InstanceHead(2, hidden=())
    head[-1].weight.data = torch.tensor([[1.0, 0], [2, -1]])
    head[-1].bias.data = torch.tensor([0.0, 1])
    assert head(torch.tensor([[3.0, 4.0]])).tolist() == [[3, 3]]


def test_dropout_comes_before_every_hidden_layer_and_not_before_the_last():
    layers = hidden_layers(4, (8, 8), dropout=0.5)
    assert [type(layer).__name__ for layer in layers] == ["Dropout", "Linear", "Dropout", "ReLU", "Linear", "ReLU"]
    assert not any(isinstance(layer, nn.Dropout) for layer in hidden_layers(4, (8, 8)))


def test_dropout_equals_the_plain_order_relu_then_dropout():
    """Same mask, same values, same gradient: the order inside `hidden_layers` is a matter of memory alone."""
    inputs, mask = torch.randn(50, 6), torch.rand(50, 6) < 0.5
    plain = inputs.clone().requires_grad_()
    swapped = inputs.clone().requires_grad_()
    (torch.relu(plain) * mask / 0.5).square().sum().backward()
    torch.relu(swapped * mask / 0.5).square().sum().backward()
    torch.testing.assert_close(swapped.grad, plain.grad)


def test_dropout_scales_while_training_and_does_nothing_in_evaluation():
    torch.manual_seed(0)
    dropout, ones = Dropout(0.25), torch.ones(10_000)
    dropped = dropout(ones)
    torch.testing.assert_close(dropped.unique(), torch.tensor([0, 4 / 3]))
    assert (dropped == 0).float().mean().item() == pytest.approx(0.25, abs=0.02)
    assert dropout.eval()(ones) is ones


def test_released_initialisation():
    torch.manual_seed(0)
    head = InstanceHead(200, hidden=(300,), init="normal_0.01")
    for layer in (layer for layer in head.modules() if isinstance(layer, nn.Linear)):
        assert layer.weight.std().item() == pytest.approx(0.01, rel=0.1)
        assert layer.bias.abs().max() == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [({"hidden": (0,)}, "hidden"), ({"dropout": 1.0}, r"dropout=1.0")],
)
def test_wrong_settings(options, message):
    with pytest.raises(UserError, match=message):
        InstanceHead(8, **options)
