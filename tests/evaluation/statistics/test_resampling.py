"""Bootstrap and permutation by case against plain loops, and Benjamini-Hochberg by hand."""

import itertools
import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from kd_mil.evaluation.statistics.resampling import case_counts, false_discovery_rates, percentiles, permutation_test


def test_rows_of_a_case_are_drawn_together_and_cases_as_often_as_there_are():
    [counts] = case_counts(["a", "b", "a", "c"], 50, seed=0)
    assert (counts[:, 0] == counts[:, 2]).all()
    assert (counts[:, [0, 1, 3]].sum(1) == 3).all()


def test_the_interval_of_a_mean_is_that_of_a_loop_over_cases():
    """Cases of one, two and three rows: a ratio of sums, whose spread a bootstrap over rows would underestimate."""
    rng = np.random.default_rng(0)
    cases = np.repeat(np.arange(20), rng.integers(1, 4, 20))
    values = rng.normal(size=20)[cases]
    counts = np.concatenate(list(case_counts([str(case) for case in cases], 20_000, seed=1)))
    low, high = percentiles(counts @ values / counts.sum(1))
    looped = []
    for _ in range(20_000):
        rows = np.concatenate([np.flatnonzero(cases == case) for case in rng.integers(0, 20, 20)])
        looped.append(values[rows].mean())
    assert (low, high) == pytest.approx(tuple(np.percentile(looped, [2.5, 97.5])), abs=0.03)


def test_undefined_resamples_are_left_out():
    assert percentiles(np.array([1.0, np.nan, 1.0])) == (1, 1)
    assert all(map(math.isnan, percentiles(np.array([np.nan]))))


def test_a_permutation_test_over_cases_by_enumeration():
    """Five cases of two rows: 32 exchanges, each counted."""
    rng = np.random.default_rng(3)
    cases, labels = np.repeat(list("abcde"), 2), np.array([0, 1] * 5)
    ours, theirs = rng.random((2, 10)) + labels * np.array([[0.8], [0.1]])

    def score(probs):
        return roc_auc_score(labels, probs)

    difference, p = permutation_test(score, ours, theirs, cases)
    assert difference == score(ours) - score(theirs)
    differences = []
    for exchanged in itertools.product([False, True], repeat=5):
        swap = np.repeat(exchanged, 2)
        differences.append(score(np.where(swap, theirs, ours)) - score(np.where(swap, ours, theirs)))
    expected = (np.abs(differences) >= abs(difference) - 1e-12).mean()
    assert 0 < p < 1
    assert p == pytest.approx(expected)


def test_one_case_tells_nothing():
    assert math.isnan(permutation_test(np.mean, np.ones(3), np.zeros(3), ["a"] * 3)[1])


def test_an_undefined_score_has_no_p_value():
    """Where one class is absent no exchange is as far apart as NaN, which is no evidence of anything."""
    difference, p = permutation_test(lambda probs: math.nan, np.ones(3), np.zeros(3), list("abc"))
    assert math.isnan(difference)
    assert math.isnan(p)


def test_benjamini_hochberg_by_hand():
    """Sorted 0.01, 0.02, 0.04 times 3/1, 3/2, 3/3, from the largest on never rising."""
    assert false_discovery_rates([0.04, None, 0.01, 0.02, math.nan]) == [
        pytest.approx(0.04),
        None,
        pytest.approx(0.03),
        pytest.approx(0.03),
        None,
    ]
    assert false_discovery_rates([None]) == [None]
