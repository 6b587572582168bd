"""Pseudo-labels against the truth, against scikit-learn and by hand."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, confusion_matrix, roc_auc_score

from kd_mil.evaluation.pseudo_labels import dropped_precision, pseudo_label_scores


def test_scores_equal_scikit_learn_and_unknown_instances_do_not_count():
    random = np.random.default_rng(0)
    truth, bags = random.integers(-1, 2, 200), random.integers(0, 5, 200)
    labels, student = random.random(200).round(1), random.standard_normal(200)
    found = pseudo_label_scores(*(torch.tensor(column) for column in (labels, student, truth, bags)))
    known = truth >= 0
    (kept, wrong), (missed, right) = confusion_matrix(truth[known], labels[known] >= 0.5)
    assert found["tpr"] == pytest.approx(right / (right + missed))
    assert found["fpr"] == pytest.approx(wrong / (wrong + kept))
    for prefix, column in (("", labels), ("student_", student)):
        assert found[f"{prefix}auroc"] == pytest.approx(roc_auc_score(truth[known], column[known]))
        assert found[f"{prefix}ap"] == pytest.approx(average_precision_score(truth[known], column[known]))
        of_bags = [known & (bags == bag) for bag in range(5)]
        per_bag = np.mean([roc_auc_score(truth[own], column[own]) for own in of_bags])
        assert found[f"{prefix}auroc_per_bag"] == pytest.approx(per_bag)


def test_what_is_not_known_is_absent_or_nan():
    half, unknown, bag = torch.tensor([0.5]), torch.tensor([-1]), torch.tensor([0])
    assert pseudo_label_scores(half, half, unknown, bag) == {}
    found = pseudo_label_scores(half, half, torch.tensor([1]), bag)
    assert found["tpr"] == 1
    assert math.isnan(found["fpr"])
    assert math.isnan(found["auroc"])
    assert math.isnan(found["student_auroc"])
    assert dropped_precision(unknown) == {}
    assert dropped_precision(torch.tensor([1, 0, 1, -1]))["precision"] == pytest.approx(2 / 3)
