"""The share of positive instances: schedule, memory, bounds, and what is refused."""

import math

import pytest
import torch

from kd_mil.core.errors import UserError
from kd_mil.methods.base.positive_mass import PositiveMass


def mass(value, largest=0.45, momentum=0.5):
    return PositiveMass(value, largest, momentum, "method")


def test_a_number_is_approached_from_a_half():
    assert [mass(0.3).scheduled(epoch, 8) for epoch in (0, 2, 4, 7)] == pytest.approx([0.5, 0.4, 0.3, 0.3])
    assert mass(0.7).scheduled(0, 8) == 0.7
    assert mass(1).scheduled(0, None) == 1


@pytest.mark.parametrize("epochs", [None, -1])
def test_half_of_a_run_without_an_end_is_refused(epochs):
    with pytest.raises(UserError, match=r"method\.mass=0\.3 needs trainer\.max_epochs"):
        mass(0.3).scheduled(1, epochs)


def test_estimates_are_remembered_and_bounded():
    """Estimates .25 and .75 with momentum .5 give .25, then .5; not above .45, not below 1 / mean size."""
    zeros, estimated = torch.zeros(4), mass("mixture")
    assert estimated.estimated(torch.tensor([0.0, 0, 0, 1]), zeros, 10.0) == pytest.approx(0.25)
    assert estimated.estimated(torch.tensor([0.0, 1, 1, 1]), zeros, 10.0) == pytest.approx(0.45)
    assert float(estimated.estimate) == pytest.approx(0.5)
    assert mass("mixture").estimated(zeros, zeros, 10.0) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"value": 0.0}, "method.mass"),
        ({"value": 1.5}, "method.mass"),
        ({"value": math.nan}, "method.mass"),
        ({"value": "mixtur"}, "method.mass=mixtur"),
        ({"value": 0.3, "largest": 1.0}, "method.largest_mass"),
        ({"value": 0.3, "momentum": 1.0}, "method.momentum"),
    ],
)
def test_settings_outside_their_range_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        mass(**settings)
