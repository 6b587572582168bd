"""When roles are switched."""

import pytest

from kd_mil.core.errors import UserError
from kd_mil.methods.ifkd.role_switch import RoleSwitch


def test_chances_come_at_the_first_epoch_and_each_period_after():
    switch = RoleSwitch(first=4, period=3)
    assert [epoch for epoch in range(12) if switch.due(epoch)] == [4, 7, 10]
    assert not any(RoleSwitch(rule="never", first=1, period=1).due(epoch) for epoch in range(9))


@pytest.mark.parametrize("settings", [{"period": 0}, {"first": 0}, {"patience": 0}])
def test_a_switch_needs_an_epoch(settings):
    with pytest.raises(UserError, match=f"{next(iter(settings))}="):
        RoleSwitch(**settings)
