"""Wilson's interval by hand and by scipy, and the shares it is of."""

import math

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, precision_score, recall_score

from kd_mil.evaluation.statistics.proportions import decided_shares, wilson


def test_all_right_by_hand():
    """Of n without a fault the lower end is n / (n + z²): 6 / (6 + 3.8415)."""
    assert wilson(6, 6) == (pytest.approx(6 / (6 + 1.959964**2)), pytest.approx(1))
    assert wilson(0, 6) == (pytest.approx(0, abs=1e-12), pytest.approx(1.959964**2 / (6 + 1.959964**2)))
    assert all(map(math.isnan, wilson(0, 0)))


@pytest.mark.parametrize(("successes", "total"), [(0, 1), (3, 7), (7, 7), (50, 90), (999, 1000)])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_the_interval_of_scipy(successes, total, level):
    expected = binomtest(successes, total).proportion_ci(level, method="wilson")
    assert wilson(successes, total, level) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_shares_of_decisions():
    rng = np.random.default_rng(0)
    labels, decided = rng.integers(0, 2, (2, 50))
    shares = {name: successes / total for name, (successes, total) in decided_shares(labels, decided, 2).items()}
    assert shares == pytest.approx(
        {
            "accuracy": accuracy_score(labels, decided),
            "sensitivity": recall_score(labels, decided),
            "specificity": recall_score(1 - labels, 1 - decided),
            "precision": precision_score(labels, decided),
            "npv": precision_score(1 - labels, 1 - decided),
        }
    )
    assert decided_shares(np.array([0, 1, 2]), np.array([0, 2, 2]), 3) == {"accuracy": (2, 3)}
