"""Operating points by hand and by trying every threshold."""

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from kd_mil.evaluation.statistics.operating_points import POINTS, operating_points
from kd_mil.evaluation.thresholds import youden_threshold


def test_points_by_hand():
    """0.1 0.3 negative, 0.4 positive, 0.6 negative, 0.8 positive."""
    points = operating_points(np.array([0.1, 0.3, 0.4, 0.6, 0.8]), np.array([0, 0, 1, 0, 1]))
    assert points["sensitivity_95"] == pytest.approx(0.35)
    assert points["specificity_95"] == pytest.approx(0.7)
    assert points["f1"] == pytest.approx(0.35)
    assert points["youden"] == pytest.approx(0.35)


def test_every_threshold_tried():
    rng = np.random.default_rng(0)
    labels = (rng.random(150) < 0.3).astype(int)
    probs = np.clip(rng.normal(0.4 + 0.2 * labels, 0.2), 0, 1).round(2)
    points = operating_points(probs, labels)
    assert set(points) == set(POINTS)
    tried = np.r_[np.unique(probs), 1.5]
    sensitivity = np.array([(probs[labels == 1] >= cut).mean() for cut in tried])
    specificity = np.array([(probs[labels == 0] < cut).mean() for cut in tried])
    for target in (0.9, 0.95, 0.99):
        cut = points[f"sensitivity_{100 * target:.0f}"]
        assert (probs[labels == 1] >= cut).mean() >= target
        assert (probs[labels == 0] < cut).mean() == specificity[sensitivity >= target].max()
        cut = points[f"specificity_{100 * target:.0f}"]
        assert (probs[labels == 0] < cut).mean() >= target
        assert (probs[labels == 1] >= cut).mean() == sensitivity[specificity >= target].max()
    best = max(f1_score(labels, probs >= cut, zero_division=0) for cut in tried)
    assert f1_score(labels, probs >= points["f1"]) == best


def test_youden_is_that_of_training():
    rng = np.random.default_rng(1)
    for _ in range(20):
        labels, probs = rng.integers(0, 2, 12), rng.random(12).round(1)
        if 0 < labels.sum() < 12:
            expected = youden_threshold(torch.from_numpy(probs), torch.from_numpy(labels))
            assert operating_points(probs, labels)["youden"] == pytest.approx(expected)


def test_one_class_leaves_one_half():
    assert operating_points(np.array([0.2, 0.9]), np.array([1, 1])) == dict.fromkeys(POINTS, 0.5)
