"""The running average against its formula, its state, and modes that come back."""

import copy

import pytest
import torch
from torch import nn

from kd_mil.core.errors import UserError
from kd_mil.methods.base.weight_average import WeightAverage, evaluating


def test_decay_rises_to_its_limit():
    """Updates 1 and 2 are plain means, later ones weigh 1 - decay = 0.4."""
    layer = nn.Linear(1, 1, bias=False)
    average = WeightAverage([layer], decay=0.6)
    expected = None
    for update, value in enumerate([1.0, 3.0, 5.0, -2.0], start=1):
        nn.init.constant_(layer.weight, value)
        average.update([layer])
        keep = min(0.6, 1 - 1 / update)
        expected = value if expected is None else keep * expected + (1 - keep) * value
        assert float(average.parts[0].weight) == pytest.approx(expected)


def test_statistics_are_averaged_and_counts_copied():
    norm = nn.BatchNorm1d(2)
    average = WeightAverage([norm], decay=0.5)
    for mean in (1.0, 3.0):
        norm.running_mean.fill_(mean)
        norm.num_batches_tracked += 4
        average.update([norm])
    assert average.parts[0].running_mean.tolist() == [2.0, 2.0]
    assert int(average.parts[0].num_batches_tracked) == 8


def test_a_loaded_average_goes_on_where_it_was():
    layer = nn.Linear(2, 2)
    average = WeightAverage([layer], 0.9)
    average.update([layer])
    average.update([layer])
    other = WeightAverage([copy.deepcopy(layer)], 0.9)
    other.load_state_dict(average.state_dict())
    assert other.updates == 2
    assert not any(parameter.requires_grad for parameter in other.parameters())


@pytest.mark.parametrize("decay", [1.0, -0.1, float("nan")])
def test_a_decay_outside_its_range_is_refused(decay):
    with pytest.raises(UserError, match=r"method\.average"):
        WeightAverage([nn.Linear(1, 1)], decay)


def test_every_layer_gets_its_own_mode_back():
    network = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(3))
    network[1].eval()
    with evaluating(network):
        assert not network[0].training
        assert not torch.is_grad_enabled()
    assert network[0].training
    assert not network[1].training
