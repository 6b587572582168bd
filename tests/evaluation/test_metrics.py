"""Scores against scikit-learn and by hand; undefined ones are NaN, never 0 or 1."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, roc_auc_score

from kd_mil.evaluation.metrics import bag_scores, binary_scores, instance_scores, multiclass_scores
from kd_mil.evaluation.thresholds import instance_threshold, youden_threshold


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("decimals", [1, 8])
def test_binary_scores_equal_scikit_learn(seed, decimals):
    """Also with many ties (one decimal)."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, 60)
    probs = (0.3 * labels + 0.7 * generator.random(60)).round(decimals)
    scores = binary_scores(torch.tensor(probs), torch.tensor(labels))
    assert scores["auroc"] == pytest.approx(roc_auc_score(labels, probs))
    assert scores["ap"] == pytest.approx(average_precision_score(labels, probs))
    assert scores["accuracy"] == pytest.approx(accuracy_score(labels, probs >= 0.5))
    assert scores["f1"] == pytest.approx(f1_score(labels, probs >= 0.5))


def test_ranking_is_exact_where_a_sigmoid_saturates():
    """Scores of 30, 31 and 32 are all 1.0 after a float32 sigmoid, but their order is plain."""
    scores = instance_scores(torch.ones(3), torch.tensor([30.0, 31.0, 32.0]), torch.tensor([0, 0, 1]))
    assert scores["instance_auroc"] == 1.0


def test_one_class_has_no_auroc():
    with pytest.warns(UserWarning, match="only one class"):
        scores = binary_scores(torch.tensor([0.2, 0.9]), torch.tensor([1, 1]))
    assert math.isnan(scores["auroc"])
    assert math.isnan(scores["ap"])
    assert scores["accuracy"] == 0.5
    assert scores["f1"] == pytest.approx(2 / 3)
    with pytest.warns(UserWarning, match="only one class"):
        scores = binary_scores(torch.tensor([0.2, 0.9]), torch.tensor([0, 0]))
    assert math.isnan(scores["ap"])
    assert math.isnan(scores["f1"])


def test_unknown_instances_are_left_out():
    labels = torch.tensor([0, 1, -1, -1])
    scores = instance_scores(torch.tensor([0.1, 0.9, 0.95, 0.0]), torch.tensor([0.1, 0.9, 0.95, 0.0]), labels)
    assert scores["instance_auroc"] == 1.0
    assert scores["instance_accuracy"] == 1.0


def test_instance_scores_at_both_thresholds():
    """At 0.3 one of two positives is found beside one of two negatives more; at 0.5 nothing is."""
    probs = torch.tensor([0.1, 0.4, 0.2, 0.45, 0.9])
    scores = instance_scores(probs, probs, torch.tensor([0, 0, 1, 1, -1]), threshold=0.3)
    assert (scores["instance_accuracy"], scores["instance_f1"]) == (0.5, 0.0)
    assert (scores["instance_accuracy_tuned"], scores["instance_f1_tuned"]) == (0.5, pytest.approx(0.5))


def test_without_any_instance_label_scores_are_undefined():
    with pytest.warns(UserWarning, match="only one class"):
        scores = instance_scores(torch.rand(5), torch.rand(5), torch.full((5,), -1))
    assert all(math.isnan(value) for value in scores.values())


def test_bag_scores_at_both_thresholds():
    probs = torch.tensor([[0.9, 0.1], [0.7, 0.3], [0.6, 0.4], [0.1, 0.9]], dtype=torch.float64)
    scores = bag_scores(probs, torch.tensor([0, 0, 1, 1]), threshold=0.35)
    assert (scores["bag_accuracy"], scores["bag_accuracy_tuned"]) == (0.75, 1.0)
    assert scores["bag_loss"] == pytest.approx(-math.log(0.9 * 0.7 * 0.4 * 0.9) / 4)


def test_multiclass_scores_equal_scikit_learn():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 90)
    probs = generator.dirichlet(np.ones(3), 90)
    scores = multiclass_scores(torch.tensor(probs), torch.tensor(labels))
    assert scores["auroc"] == pytest.approx(roc_auc_score(labels, probs, multi_class="ovr"))
    assert scores["f1"] == pytest.approx(f1_score(labels, probs.argmax(1), average="macro"))
    assert scores["accuracy"] == pytest.approx((labels == probs.argmax(1)).mean())


@pytest.mark.filterwarnings("ignore:.*undefined")
def test_scores_of_nothing_are_undefined():
    scores = binary_scores(torch.zeros(0), torch.zeros(0, dtype=torch.long))
    assert all(math.isnan(score) for score in scores.values())


def test_youden_threshold_separates_what_can_be_separated():
    probs, labels = torch.tensor([0.1, 0.2, 0.6, 0.3, 0.8, 0.9]), torch.tensor([0, 0, 0, 1, 1, 1])
    threshold = youden_threshold(probs, labels)
    assert 0.2 < threshold < 0.3 or 0.6 < threshold < 0.8
    assert youden_threshold(probs[:3], labels[:3]) == 0.5
    by_hand = torch.tensor([0.1, 0.2, 0.8, 0.9])
    assert youden_threshold(by_hand, torch.tensor([0, 0, 1, 1])) == pytest.approx(0.5), "halfway from 0.8 to 0.2"
    assert youden_threshold(1 - labels.double(), labels) == 0.5, "no threshold is better than chance"


def test_instance_threshold_by_hand():
    """Of the negative bags' .1 .3 .6 .7, a quarter may be above it: .7, so .6 and what ties with it stays below."""
    probs = torch.tensor([0.1, 0.3, 0.6, 0.7, 0.2, 0.6, 0.65], dtype=torch.float64)
    in_positive_bag = torch.arange(7) >= 4
    threshold = instance_threshold(probs, in_positive_bag, 0.25)
    assert threshold == math.nextafter(0.6, 1)
    assert (probs >= threshold).tolist() == [False, False, False, True, False, False, True]
    assert instance_threshold(probs, in_positive_bag) == math.nextafter(0.7, 1), "5 % of four are none"
    assert instance_threshold(probs[:4], in_positive_bag[:4]) == 0.5
    assert instance_threshold(probs[4:], in_positive_bag[4:]) == 0.5


def test_instance_threshold_holds_in_single_precision():
    probs = torch.tensor([0.1, 0.3, 0.9])
    threshold = instance_threshold(probs, torch.tensor([False, False, True]))
    assert (probs >= threshold).tolist() == [False, False, True]
