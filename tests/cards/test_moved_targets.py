"""Checkpoints of version 0.1 name classes by the paths they had then."""

import pytest
from hydra.utils import get_object

from kd_mil.cards.card import is_allowed
from kd_mil.cards.moved_targets import MOVED, with_targets_of_today

RENAMED = {"Resolution": "ResolutionDistillation"}


@pytest.mark.parametrize("old", sorted(MOVED))
def test_a_moved_target_is_found_and_may_be_built(old):
    name = old.rpartition(".")[2]
    assert get_object(MOVED[old]).__name__ == RENAMED.get(name, name)
    assert is_allowed(MOVED[old])


def test_targets_are_renamed_at_any_depth_and_nothing_else_is():
    old = "kd_mil.models.mining.HardPositiveMining"
    config = {"_target_": "kd_mil.methods.weno.WENO", "parts": [{"_target_": old, "note": old}], "epochs": 3}
    assert with_targets_of_today(config) == {
        "_target_": "kd_mil.methods.weno.weno.WENO",
        "parts": [{"_target_": MOVED[old], "note": old}],
        "epochs": 3,
    }
    assert with_targets_of_today({"_target_": "somebody.Else"}) == {"_target_": "somebody.Else"}
