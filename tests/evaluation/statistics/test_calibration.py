"""Calibration by hand and against scikit-learn."""

import math

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss

from kd_mil.evaluation.statistics.calibration import (
    LEAST_TEMPERATURE,
    brier_score,
    expected_calibration_error,
    fit_temperature,
    maximum_calibration_error,
    reliability_curve,
    tempered,
    top_class,
)

PROBS, EVENTS = np.array([0.1, 0.2, 0.6, 0.7, 1.0]), np.array([0, 1, 0, 1, 1])


def test_a_curve_by_hand():
    """Two bins: (0.1, 0.2) with one event of two, and (0.6, 0.7, 1.0) with two of three."""
    curve = reliability_curve(PROBS, EVENTS, bins=2)
    assert curve.counts.tolist() == [2, 3]
    assert curve.predicted == pytest.approx([0.15, 2.3 / 3])
    assert curve.observed == pytest.approx([0.5, 2 / 3])
    assert expected_calibration_error(PROBS, EVENTS, 2) == pytest.approx((2 * 0.35 + 3 * 0.1) / 5)
    assert maximum_calibration_error(PROBS, EVENTS, 2) == pytest.approx(0.35)


def test_an_edge_belongs_to_the_bin_above_it_and_one_to_the_last():
    assert reliability_curve(np.array([0.0, 0.5, 1.0]), np.ones(3), 2).counts.tolist() == [1, 2]


def test_the_curve_of_scikit_learn():
    rng = np.random.default_rng(0)
    probs = rng.random(500)
    events = rng.random(500) < probs**2
    observed, predicted = calibration_curve(events, probs, n_bins=7)
    curve = reliability_curve(probs, events, 7)
    assert curve.observed == pytest.approx(observed)
    assert curve.predicted == pytest.approx(predicted)


def test_empty_bins_are_undefined_and_weigh_nothing():
    curve = reliability_curve(np.array([0.95]), np.array([1]), 10)
    assert np.isnan(curve.predicted[:9]).all()
    assert expected_calibration_error(np.array([0.95]), np.array([1])) == pytest.approx(0.05)
    assert math.isnan(expected_calibration_error(np.empty(0), np.empty(0)))


def test_brier_scores():
    probs = np.stack([1 - PROBS, PROBS], 1)
    assert brier_score(probs, EVENTS) == pytest.approx(brier_score_loss(EVENTS, PROBS))
    assert brier_score(np.array([[0.2, 0.3, 0.5]]), np.array([2])) == pytest.approx(0.04 + 0.09 + 0.25)


def test_confidence_of_several_classes():
    confidence, right = top_class(np.array([[0.2, 0.5, 0.3], [0.6, 0.3, 0.1]]), np.array([1, 2]))
    assert (confidence.tolist(), right.tolist()) == ([0.5, 0.6], [True, False])


def test_a_temperature_is_found_again():
    """Labels drawn by the probabilities, whose odds were then squared: a temperature of 2 is right."""
    rng = np.random.default_rng(0)
    probs = rng.dirichlet(np.ones(3), 20_000)
    labels = (rng.random(len(probs))[:, None] > probs.cumsum(1)).sum(1)
    sharpened = tempered(probs, 0.5)
    assert fit_temperature(sharpened, labels) == pytest.approx(2, rel=0.03)
    assert tempered(sharpened, 2) == pytest.approx(probs)


def test_no_other_temperature_is_better():
    rng = np.random.default_rng(1)
    probs = rng.dirichlet(np.ones(2), 200)
    labels = (rng.random(200) < probs[:, 1] ** 2).astype(int)
    best = fit_temperature(probs, labels)
    losses = {t: log_loss(labels, tempered(probs, t)) for t in (best, best * 1.01, best / 1.01)}
    assert min(losses, key=losses.get) == best


def test_a_temperature_has_bounds_and_needs_two_classes():
    probs = np.array([[0.9, 0.1], [0.2, 0.8]])
    assert fit_temperature(probs, np.array([0, 1])) == pytest.approx(LEAST_TEMPERATURE, rel=1e-3)
    assert fit_temperature(probs, np.array([1, 1])) == 1
