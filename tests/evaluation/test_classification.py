"""Scores of confusion counts against scikit-learn, and what is undefined."""

import math
import warnings

import pytest
import torch
from sklearn import metrics as sk

from kd_mil.evaluation.classification import confusion_matrix, confusion_scores, image_scores

GENERATOR = torch.Generator().manual_seed(0)
LABELS = torch.randint(4, (200,), generator=GENERATOR)
PROBS = (torch.randn(200, 4, generator=GENERATOR, dtype=torch.float64) + torch.eye(4)[LABELS]).softmax(1)


def test_against_scikit_learn():
    scores, decided = image_scores(PROBS, LABELS), PROBS.argmax(1)
    assert scores["image_accuracy"] == pytest.approx(sk.accuracy_score(LABELS, decided))
    for name, score in (("f1", sk.f1_score), ("precision", sk.precision_score), ("recall", sk.recall_score)):
        assert scores[f"image_{name}"] == pytest.approx(score(LABELS, decided, average="macro")), name
    assert scores["image_auroc"] == pytest.approx(sk.roc_auc_score(LABELS, PROBS, multi_class="ovr"))
    assert scores["image_loss"] == pytest.approx(sk.log_loss(LABELS, PROBS))


def test_one_vs_rest_accuracy_counts_the_true_negatives():
    """1 - e for an error rate e of each class against the rest; a wrong count of negatives gives 1 / (1 + e)."""
    decided = PROBS.argmax(1)
    expected = sum(((decided == c) == (c == LABELS)).double().mean() for c in range(4)) / 4
    scores = confusion_scores(confusion_matrix(LABELS, decided, 4))
    assert scores["accuracy_ovr"].item() == pytest.approx(expected.item())
    error = 1 - expected.item()
    assert abs(scores["accuracy_ovr"].item() - 1 / (1 + error)) > 0.01


def test_many_matrices_at_once():
    stack = torch.randint(1, 9, (5, 3, 3), generator=GENERATOR)
    together = confusion_scores(stack)
    for at, one in enumerate(stack):
        for name, value in confusion_scores(one).items():
            assert torch.equal(together[name][at], value)


def test_undefined_scores_are_nan_not_zero():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scores = image_scores(PROBS[LABELS < 3], LABELS[LABELS < 3])
    assert math.isnan(scores["image_auroc"])
    assert math.isnan(scores["image_recall"])
    assert 0 < scores["image_accuracy"] < 1
    never_decided = torch.tensor([[5, 0], [5, 0]])
    assert math.isnan(confusion_scores(never_decided)["precision"])
    assert confusion_scores(never_decided)["f1"].item() == pytest.approx(1 / 3)


def test_f1_of_a_class_that_does_not_occur_is_undefined_though_it_is_decided():
    """As in `metrics.binary_scores` and in the intervals of a report; scikit-learn would count it as 0."""
    assert math.isnan(confusion_scores(torch.tensor([[5, 1], [0, 0]]))["f1"])
    absent = confusion_scores(torch.tensor([[4, 1], [2, 3]]))["f1"].item()
    assert absent == pytest.approx((8 / 11 + 6 / 9) / 2)
