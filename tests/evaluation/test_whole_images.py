"""What marking whole images scores, by hand."""

import pytest
import torch

from kd_mil.evaluation.whole_images import whole_image_scores


def test_three_that_know_nothing_of_pixels():
    """Two positive images of 10 pixels with 5 and 1 of tumour, two negative ones; the classifier misses the second."""
    truth, known = torch.tensor([5, 1, 0, 0]), torch.tensor([10, 10, 10, 10])
    labels, probs = torch.tensor([1, 1, 0, 0]), torch.tensor([0.9, 0.4, 0.5, 0.1])
    found = whole_image_scores(truth, known, labels, probs)
    everything, perfect, classifier = (
        found[f"{name}everything"] for name in ("mark_", "perfect_classifier_x_", "classifier_x_")
    )
    dices = [2 * 5 / 15, 2 * 1 / 11]
    assert everything["pixel_f1_pos"] == perfect["pixel_f1_pos"] == pytest.approx(sum(dices) / 2)
    assert everything["pixel_f1"] == pytest.approx(sum(dices) / 4), "every negative image is all wrong"
    assert perfect["pixel_f1"] == pytest.approx((sum(dices) + 2) / 4), "every negative image is right"
    assert classifier["pixel_f1"] == pytest.approx((dices[0] + 0 + 0 + 1) / 4)
    assert everything["pixel_precision"] == pytest.approx(6 / 40)
    assert perfect["pixel_precision"] == pytest.approx(6 / 20)
    assert classifier["pixel_recall"] == pytest.approx(5 / 6)
