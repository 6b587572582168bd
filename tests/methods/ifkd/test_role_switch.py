"""When roles are switched, and what a snapshot keeps."""

import math

import pytest
import torch
from torch import nn

from kd_mil.core.errors import UserError
from kd_mil.methods.base.snapshot import Snapshot
from kd_mil.methods.ifkd.role_switch import RoleSwitch


def test_chances_come_at_the_first_epoch_and_each_period_after():
    switch = RoleSwitch(first=4, period=3)
    assert [epoch for epoch in range(12) if switch.due(epoch)] == [4, 7, 10]
    assert not any(RoleSwitch(rule="never", first=1, period=1).due(epoch) for epoch in range(9))


@pytest.mark.parametrize("name", ["first", "period"])
def test_chances_count_from_one(name):
    with pytest.raises(UserError, match=f"method.switch.{name}=0: must be at least 1"):
        RoleSwitch(**{name: 0})


def test_snapshot_keeps_the_best_and_nothing_undefined():
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    snapshot = Snapshot(network)
    assert snapshot.empty
    assert not snapshot.offer(network, math.nan)
    assert snapshot.empty
    for value, score, kept in ((1.0, 0.5, True), (2.0, 0.4, False), (3.0, 0.5, False), (4.0, 0.6, True)):
        network[0].weight.data.fill_(value)
        network[1].running_mean.fill_(value)
        assert snapshot.offer(network, score) == kept
    network[0].weight.data.fill_(9.0)
    assert (snapshot.network[0].weight == 4).all()
    assert (snapshot.network[1].running_mean == 4).all()
    assert not any(parameter.requires_grad for parameter in snapshot.parameters())
    snapshot.forget()
    assert snapshot.empty


def test_snapshot_is_part_of_the_state():
    snapshot, other = Snapshot(nn.Linear(2, 2)), Snapshot(nn.Linear(2, 2))
    snapshot.offer(nn.Linear(2, 2), -0.25)
    other.load_state_dict(snapshot.state_dict())
    assert other.score == -0.25
    assert torch.equal(other.network.weight, snapshot.network.weight)
