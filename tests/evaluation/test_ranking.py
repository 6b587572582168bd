"""Rankings of instances against scikit-learn, bag by bag, and by hand."""

import math
import time

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from kd_mil.evaluation.ranking import areas, grouped_areas, ranking_scores


def ranked(scores, labels, bags, bag_labels):
    bags = torch.tensor(bags)
    return ranking_scores(torch.tensor(scores), torch.tensor(labels) > 0, bags, torch.tensor(bag_labels)[bags] > 0)


def test_three_bags_by_hand():
    """Bag 0 is negative. Bag 1 ranks its positive first of two, bag 2 second of three; bag 3 has no negative."""
    scores = [0.9, 0.1, 0.8, 0.2, 0.7, 0.5, 0.3, 0.6]
    labels = [0, 0, 1, 0, 0, 1, 0, 1]
    found = ranked(scores, labels, [0, 0, 1, 1, 2, 2, 2, 3], [0, 1, 1, 1])
    # descending: n.9 p.8 n.7 p.6 p.5 n.3 n.2 n.1 -> 4 + 3 + 3 of 15 pairs
    assert found["auroc"] == pytest.approx(10 / 15)
    assert found["ap"] == pytest.approx((1 / 2 + 2 / 4 + 3 / 5) / 3)
    # within: p.8 n.7 p.6 p.5 n.3 n.2 -> 3 + 2 + 2 of 9
    assert found["auroc_within"] == pytest.approx(7 / 9)
    assert found["ap_within"] == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)
    assert found["auroc_per_bag"] == pytest.approx((1 + 1 / 2) / 2)
    assert found["ap_per_bag"] == pytest.approx((1 + 1 / 2) / 2)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("decimals", [1, 9])
def test_random_bags_equal_scikit_learn(seed, decimals):
    """Also with many ties (one decimal); instances come in no order of bags."""
    random = np.random.default_rng(seed)
    bag_labels = random.integers(0, 2, 12)
    bags = random.integers(0, 12, 300)
    labels = bag_labels[bags] * random.integers(0, 2, 300)
    labels[bags == np.flatnonzero(bag_labels)[0]] = 1  # one bag with one class
    scores = (0.3 * labels + random.random(300)).round(decimals)
    found = ranked(scores.tolist(), labels.tolist(), bags.tolist(), bag_labels.tolist())
    inside = bag_labels[bags] > 0
    mixed = [bags == bag for bag in np.flatnonzero(bag_labels)[1:]]
    for name, oracle in (("auroc", roc_auc_score), ("ap", average_precision_score)):
        assert found[name] == pytest.approx(oracle(labels, scores), abs=1e-12)
        assert found[f"{name}_within"] == pytest.approx(oracle(labels[inside], scores[inside]), abs=1e-12)
        per_bag = np.mean([oracle(labels[own], scores[own]) for own in mixed])
        assert found[f"{name}_per_bag"] == pytest.approx(per_bag, abs=1e-12)


def test_what_is_undefined_is_nan():
    found = ranked([0.1, 0.2], [0, 0], [0, 0], [0])
    assert all(math.isnan(value) for value in found.values())
    found = ranked([0.1, 0.2, 0.3], [0, 0, 1], [0, 0, 1], [0, 1])
    assert found["auroc"] == 1
    assert math.isnan(found["auroc_within"])
    assert math.isnan(found["auroc_per_bag"])
    nothing = torch.zeros(0)
    assert all(math.isnan(float(value)) for value in areas(nothing, nothing > 0))
    assert all(not len(value) for value in grouped_areas(nothing, nothing > 0, nothing.long()))


def test_saturated_scores_are_told_apart():
    scores = torch.tensor([40.0, 39.0], dtype=torch.float64)
    assert float(areas(scores, torch.tensor([True, False]))[0]) == 1


def test_a_million_instances_take_no_time():
    generator = torch.Generator().manual_seed(0)
    scores, bags = torch.rand(10**6, generator=generator), torch.arange(10**6) // 1000
    positive = (torch.rand(10**6, generator=generator) < 0.1) & (bags % 2 == 0)
    start = time.process_time()
    ranking_scores(scores, positive, bags, bags % 2 == 0)
    assert time.process_time() - start < 10
