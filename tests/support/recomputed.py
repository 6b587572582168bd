"""The test metrics of a run again, from the tables that it left and what validation chose."""

import json

import numpy as np
import pytest
import torch

from kd_mil.evaluation.case_metrics import calibration_scores
from kd_mil.reporting.predictions import held_out, predicted_rows
from kd_mil.reporting.resampling import weighted_metric

CHOSEN = ("bag_temperature", "bag_threshold", "case_threshold", "instance_threshold")
"""Of validation, kept in the checkpoint."""


def all_recomputed(directory):
    """The names without their role of all metrics of the test, each of which was found again."""
    metrics = json.loads((directory / "metrics.json").read_text())
    tested, names = held_out(directory), set()
    for key, value in metrics.items():
        if not key.startswith("test/"):
            continue
        role, metric = key.split("/", 2)[1:]
        if metric in CHOSEN:
            continue
        names.add(metric)
        expected = np.nan if value is None else value
        assert again(directory, role, metric, tested, metrics) == pytest.approx(expected, abs=1e-9, nan_ok=True), key
    return names


def again(directory, role, metric, tested, metrics):
    found = weighted_metric(directory, role, metric, tested)
    if found is not None:
        owners, score = found
        return score(np.ones((1, len(owners))))[0]
    rows = predicted_rows(directory, "bag", role, tested)
    [positive] = rows.classes
    probs = torch.from_numpy(np.stack([1 - positive.ranking, positive.ranking], 1))
    labels = torch.from_numpy(positive.labels.astype(np.int64))
    return calibration_scores(probs, labels, metrics[f"test/{role}/bag_temperature"])[metric]
