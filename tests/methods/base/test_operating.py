"""Operating points and temperatures in a method's checkpoint."""

import numpy as np
import pytest
import torch

from kd_mil.core.errors import UserError
from kd_mil.evaluation.statistics.calibration import fit_temperature
from kd_mil.evaluation.statistics.operating_points import operating_points
from kd_mil.methods.base.operating import OperatingPoints

PROBS = torch.tensor([[0.9, 0.1], [0.7, 0.3], [0.6, 0.4], [0.2, 0.8]], dtype=torch.float64)
LABELS, CASES = torch.tensor([0, 0, 1, 1]), ["a", "a", "b", "b"]


def chosen() -> OperatingPoints:
    points = OperatingPoints(["teacher", "student"])
    for role in points.roles:
        points.choose(role, PROBS, LABELS, CASES)
    return points


def test_points_of_bags_and_of_cases_and_a_temperature():
    """Cases: 0.3 negative, 0.8 positive."""
    points = chosen()
    expected = operating_points(PROBS[:, 1].numpy(), LABELS.numpy())
    assert points.thresholds("f1")["student"] == expected["f1"] == pytest.approx(0.35)
    assert points.thresholds("f1", of="cases")["student"] == pytest.approx(0.55)
    assert points.temperature_of["teacher"] == pytest.approx(fit_temperature(PROBS.numpy(), LABELS.numpy()))


def test_they_travel_with_the_weights_and_old_weights_have_none():
    fresh = OperatingPoints(["teacher", "student"])
    fresh.load_state_dict(chosen().state_dict())
    assert fresh.thresholds("sensitivity_95") == chosen().thresholds("sensitivity_95")
    assert fresh.case_pooling == "max"
    old = OperatingPoints(["teacher"])
    old.load_state_dict({})
    assert old.case_pooling is None
    with pytest.raises(UserError, match="the checkpoint holds none"):
        old.thresholds("youden")
    with pytest.raises(UserError, match=r"operating_point=yoden: choose .* did you mean 'youden'"):
        old.thresholds("yoden")


def test_more_than_two_classes_have_a_temperature_alone():
    points = OperatingPoints(["model"])
    probs = torch.from_numpy(np.random.default_rng(0).dirichlet(np.ones(3), 30))
    points.choose("model", probs, torch.arange(30) % 3)
    assert points.temperature_of["model"] > 1
    assert points.bags[0, 0] == -1
