"""The arithmetic behind the record of Distill-to-Label on colon images."""

import sys

import numpy as np
import pytest

from experiments.d2l_colon import features
from tests.support.command import ROOT


@pytest.fixture
def prevalence(monkeypatch):
    """The script, which imports the published values from its own folder."""
    monkeypatch.syspath_prepend(str(ROOT / "experiments" / "d2l_colon"))
    monkeypatch.delitem(sys.modules, "table_one", raising=False)
    import prevalence

    yield prevalence
    for name in ("prevalence", "table_one"):
        sys.modules.pop(name)


def test_bounds_by_hand(prevalence, monkeypatch):
    """Accuracy .8 and F1 .5: hits .5 * .2 / (2 * .5) = .1 of all, and all errors may be misses: .3."""
    monkeypatch.setattr(prevalence, "ROUNDING", 0.0)
    assert prevalence.bounds(0.8, 0.5) == pytest.approx((0.1, 0.3))
    monkeypatch.setattr(prevalence, "ROUNDING", 0.005)
    low, high = prevalence.bounds(0.8, 0.5)
    assert (low, high) == pytest.approx((0.495 * 0.195 / 1.01, 0.505 * 0.205 / 0.99 + 0.205))


def test_folds_fit_in_some_order(prevalence):
    wanted = [(0.1, 0.2), (0.2, 0.3), (0.3, 0.4), (0.4, 0.5), (0.5, 0.6)]
    assert prevalence.fits(np.array([0.55, 0.15, 0.35, 0.25, 0.45]), wanted)
    assert not prevalence.fits(np.array([0.55, 0.15, 0.35, 0.25, 0.25]), wanted)


def test_every_fold_gets_its_share_of_both_labels(prevalence):
    """Ten images of 10 instances; the five positive ones have 4 positive instances: 4 of 20 in every fold."""
    labels = np.array([0, 1] * 5)
    counts = np.stack([np.full(10, 10), 4 * labels], axis=1)
    shares = prevalence.share_of_folds(counts, labels, np.random.default_rng(0))
    assert shares.tolist() == [0.2] * 5


def test_paired_differences_by_hand():
    """Two folds; fold 1 has one pair with both: differences .1, .3 and -.1. Folds are drawn whole: .2, .1 or -.1."""
    teacher = {("0", "0"): {"f1": 0.5}, ("0", "1"): {"f1": 0.5}, ("1", "0"): {"f1": 0.5}, ("1", "1"): {"f1": 0.5}}
    student = {("0", "0"): {"f1": 0.6}, ("0", "1"): {"f1": 0.8}, ("1", "0"): {"f1": 0.4}}
    found = features.paired(student, teacher, "f1")
    assert (found["above"], found["pairs"]) == (2, 3)
    assert found["mean"] == pytest.approx(0.1)
    assert (found["low"], found["high"]) == pytest.approx((-0.1, 0.2))
