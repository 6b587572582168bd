"""Calibration of classifiers of images, by hand."""

import pytest
import torch

from kd_mil.callbacks.image_calibration import calibration, reliability_figure


def rows(*positive, labels):
    probs = torch.tensor(positive, dtype=torch.float64)
    return {"model/probs": torch.stack([1 - probs, probs], 1), "label": torch.tensor(labels)}


def test_errors_by_hand():
    """Four decisions at .85, three right: the error is .10; validation right in all of them sharpens to its bound."""
    test = rows(0.85, 0.85, 0.15, 0.85, labels=[1, 1, 0, 0])
    found = calibration(rows(0.85, 0.15, labels=[1, 0]), test, "model")
    assert found["ece"] == pytest.approx(0.1)
    assert found["brier"] == pytest.approx((3 * 0.15**2 + 0.85**2) / 4)
    assert found["temperature"] < 0.1
    assert found["ece_tempered"] == pytest.approx(0.25, abs=1e-3)
    assert [text.get_text() for text in reliability_figure(test, ["model"]).axes[0].get_legend().get_texts()] == [
        "model, ECE 0.100"
    ]
