"""DeLong's variance by hand, by its definition, and against what is known of it."""

import math

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from kd_mil.evaluation.statistics.delong import areas_and_covariance, delong, paired_delong


def by_definition(scores, labels):
    """Area and structural components: comparisons of each positive with all negatives, and the other way round."""
    ups, downs = scores[labels == 1], scores[labels == 0]
    wins = (ups[:, None] > downs) + 0.5 * (ups[:, None] == downs)
    return wins.mean(), wins.mean(1), wins.mean(0)


def test_an_area_by_hand():
    """Positives 2 and 4, negatives 1 and 3: three of four pairs are right; components (1/2, 1) and (1, 1/2)."""
    area = delong(np.array([2.0, 4, 1, 3]), np.array([1, 1, 0, 0]))
    assert area.auroc == 0.75
    assert area.standard_error == pytest.approx(math.sqrt(0.125 / 2 + 0.125 / 2))
    assert (area.low, area.high) == (pytest.approx(0.75 - 1.959964 * 0.3535534), 1.0)


@pytest.mark.parametrize("ties", [False, True])
def test_mid_ranks_are_the_definition(ties):
    rng = np.random.default_rng(0)
    labels = (rng.random(80) < 0.4).astype(int)
    scores = rng.normal(size=(2, 80)) + labels * np.array([[1.0], [0.5]])
    scores = scores.round() if ties else scores
    areas, covariance = areas_and_covariance(scores, labels)
    one, other = (by_definition(column, labels) for column in scores)
    for area, column, (expected, _, _) in zip(areas, scores, (one, other), strict=True):
        assert area == pytest.approx(expected) == pytest.approx(roc_auc_score(labels, column))
    up, down = np.cov(one[1], other[1]), np.cov(one[2], other[2])
    expected = up / (labels == 1).sum() + down / (labels == 0).sum()
    assert covariance == pytest.approx(expected)
    found = paired_delong(*scores, labels)
    error = math.sqrt(expected[0, 0] + expected[1, 1] - 2 * expected[0, 1])
    assert found.standard_error == pytest.approx(error)
    assert found.p == pytest.approx(2 * norm.sf(abs(areas[0] - areas[1]) / error))
    assert found.low < found.difference < found.high


def test_the_interval_covers_the_truth_as_often_as_it_says():
    """Two normals a standard deviation apart have an area of Φ(1/√2)."""
    rng, truth, covered = np.random.default_rng(0), norm.cdf(1 / math.sqrt(2)), 0
    labels = np.arange(120) % 2
    for _ in range(400):
        area = delong(rng.normal(size=120) + labels, labels)
        covered += area.low <= truth <= area.high
    assert 0.92 < covered / 400 < 0.98


def test_the_interval_of_a_difference_ends_at_one():
    """Four bags, of which one ranks all and the other half of the pairs right: 0.5 and a standard error of 0.5."""
    found = paired_delong(np.array([3.0, 4, 1, 2]), np.array([2.0, 2, 1, 3]), np.array([1, 1, 0, 0]))
    assert (found.difference, found.standard_error) == (0.5, pytest.approx(0.5))
    assert (found.low, found.high) == (pytest.approx(0.5 - 1.959964 * 0.5), 1)
    assert found.p == pytest.approx(2 * norm.sf(1))


def test_what_is_undefined_is_nan():
    assert all(map(math.isnan, delong(np.array([1.0, 2]), np.array([1, 1]))))
    area = delong(np.array([1.0, 2, 3]), np.array([0, 0, 1]))
    assert area.auroc == 1
    assert math.isnan(area.standard_error)
    assert math.isnan(area.high)
    same = np.array([1.0, 4, 2, 3])
    assert math.isnan(paired_delong(same, same, np.array([0, 1, 1, 0])).p)
