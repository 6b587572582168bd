"""What a phase hands on: the best network so far, or the last."""

import math

import pytest
import torch
from torch import nn

from kd_mil.methods.base.snapshot import Snapshot


class Owner(nn.Module):
    def __init__(self, nothing, dtype=torch.float32):
        super().__init__()
        self.best = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
        self.register_buffer("best_loss", torch.tensor(nothing, dtype=dtype))


def network_of(value):
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    network[0].weight.data.fill_(value)
    network[1].running_mean.fill_(value)
    return network


def value_of(network):
    assert (network[0].weight == network[1].running_mean[0]).all(), "buffers belong to the weights"
    return float(network[0].weight[0, 0].detach())


@pytest.mark.parametrize(("mode", "sign", "nothing"), [("min", 1, math.inf), ("max", -1, math.nan)])
def test_the_best_is_kept_and_nothing_undefined(mode, sign, nothing):
    owner = Owner(nothing)
    snapshot = Snapshot(owner, mode=mode)
    assert snapshot.empty
    assert not snapshot.offer(network_of(7), math.nan)
    assert not snapshot.offer(network_of(7), sign * math.inf)
    assert snapshot.empty
    for value, loss, kept in ((1, 0.5, True), (2, 0.75, False), (3, 0.5, False), (4, 0.25, True)):
        assert snapshot.offer(network_of(value), sign * loss) == kept
    assert value_of(owner.best) == 4
    assert snapshot.score == sign * 0.25


def test_the_last_is_kept_on_request():
    snapshot = Snapshot(Owner(math.inf), select="last")
    for value, loss in ((1, 0.5), (2, 0.75)):
        assert snapshot.offer(network_of(value), loss)
    assert value_of(snapshot.network) == 2
    assert not snapshot.offer(network_of(3), math.nan)
    network = network_of(9)
    snapshot.hand_on(network, network_of(3))
    assert value_of(network) == 3, "the last epoch, although it had no score"


def test_handing_on_gives_the_weights_and_starts_anew():
    snapshot, network = Snapshot(Owner(math.inf)), network_of(9)
    snapshot.hand_on(network, network)
    assert value_of(network) == 9, "nothing was kept yet"
    snapshot.offer(network_of(1), 0.1)
    snapshot.hand_on(network, network)
    assert value_of(network) == 1
    assert snapshot.empty
    assert snapshot.offer(network_of(2), 0.2), "worse than what an earlier phase kept"


def test_a_snapshot_lives_in_the_state_of_its_owner_wherever_that_moves():
    first, second = Owner(math.nan, torch.float64), Owner(math.nan, torch.float64)
    kept, loaded = (Snapshot(owner, mode="max") for owner in (first, second))
    kept.offer(network_of(5), -0.2)
    second.load_state_dict(first.state_dict())
    assert loaded.score == -0.2
    assert value_of(loaded.network) == 5
    second.to("meta")
    assert loaded.score.is_meta, "not a tensor that was left behind"
