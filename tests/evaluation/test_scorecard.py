"""Words on instances by normalisation, lesions of a table, and scores of cases, by hand and from the definition."""

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, roc_auc_score

from kd_mil.evaluation.case_metrics import calibration_scores, case_scores
from kd_mil.evaluation.scorecard import lesion_scores, normalised, scorecard
from kd_mil.evaluation.statistics.lesions import ScoredSlide, froc
from kd_mil.evaluation.tables import PredictionTables


def tables(seed=0):
    """Three bags of 20 tiles on a grid of 5 x 4, the last one negative; tile 0 unknown."""
    generator = torch.Generator().manual_seed(seed)
    label = (torch.rand(60, generator=generator) < 0.3).long()
    label[40:], label[0] = 0, -1
    instances = {"bag": torch.arange(3).repeat_interleave(20), "label": label}
    instances |= {"x": torch.arange(60) % 5 * 256, "y": torch.arange(60) % 20 // 5 * 256}
    for role in ("teacher", "student"):
        scores = torch.rand(60, generator=generator) + 0.3 * label
        instances |= {f"{role}/scores": scores, f"{role}/probs": scores.clamp(0, 1)}
    instances["teacher/attention"] = instances["teacher/scores"] * torch.tensor([1.0, 0.1, 0.5]).repeat_interleave(20)
    return PredictionTables({"bag": torch.arange(3), "label": torch.tensor([1, 1, 0])}, instances)


def test_normalisation_by_bag_and_by_set():
    scores, bags = torch.tensor([1.0, 3.0, 10.0, 10.0]), torch.tensor([7, 7, 9, 9])
    assert normalised(scores, bags, "bag").tolist() == [0, 1, 0, 0]
    assert normalised(scores, bags, "set").tolist() == pytest.approx([0, 2 / 9, 1, 1])
    assert normalised(scores, bags, "none") is scores


def test_a_scorecard_against_scikit_learn():
    """By bag the pooled ranking changes, that within a bag does not."""
    given = tables()
    rows = {(row["word"], row["normalisation"]): row for row in scorecard(given, "teacher", "student")}
    assert set(rows) == {("teacher", how) for how in ("none", "bag", "set")} | {
        ("student", "none"),
        ("mean", "bag"),
        ("mean", "set"),
    }
    known, truth = given.instances["label"] >= 0, given.instances["label"] > 0
    scaled = normalised(given.instances["teacher/attention"].double(), given.instances["bag"], "bag")
    for word, column in {"teacher": scaled, "mean": (scaled + given.instances["student/probs"]) / 2}.items():
        assert rows[word, "bag"]["auroc"] == pytest.approx(roc_auc_score(truth[known], column[known]))
    per_bag = {rows["teacher", how]["auroc_per_bag"] for how in ("none", "bag", "set")}
    assert max(per_bag) - min(per_bag) < 1e-12
    assert rows["teacher", "none"]["auroc"] != rows["teacher", "bag"]["auroc"]


def test_lesions_of_a_table_are_those_of_its_slides():
    given = tables()
    found = lesion_scores(given, "student", 0.7)
    columns = {name: values.numpy() for name, values in given.instances.items()}
    slides = [
        ScoredSlide(
            np.stack([columns["x"], columns["y"]], 1)[start : start + 20],
            columns["student/probs"][start : start + 20],
            columns["label"][start : start + 20],
        )
        for start in (0, 20, 40)
    ]
    assert found["instance_froc"] == froc(slides, 0.7).score
    known = columns["label"] >= 0
    decided = columns["student/probs"][known] >= 0.7
    assert found["instance_dice_tuned"] == pytest.approx(f1_score(columns["label"][known], decided))
    nowhere = given._replace(instances=given.instances | {"x": torch.full((60,), -1)})
    assert lesion_scores(nowhere, "student", 0.7) == {}


def test_cases_by_hand():
    """Slides 0.2 0.9 of case a, 0.6 of b, 0.4 0.3 of c; a is positive by its second slide."""
    probs = torch.tensor([0.2, 0.6, 0.9, 0.4, 0.3], dtype=torch.float64)
    both, labels = torch.stack([1 - probs, probs], 1), torch.tensor([0, 0, 1, 0, 0])
    found = case_scores(both, labels, list("abacc"), "max", 0.7)
    assert (found["case_auroc"], found["case_accuracy"], found["case_accuracy_tuned"]) == (1, pytest.approx(2 / 3), 1)
    assert case_scores(both, labels, list("abacc"), "mean", -1.0)["case_auroc"] == 0.5
    assert found["case_threshold"] == 0.7


def test_calibration_at_a_temperature():
    probs = torch.tensor([[0.1, 0.9], [0.8, 0.2]], dtype=torch.float64)
    found = calibration_scores(probs, torch.tensor([1, 0]), 1.0)
    assert [found["bag_brier"], found["bag_brier_tempered"]] == pytest.approx([(0.01 + 0.04) / 2] * 2)
    assert found["bag_ece"] == pytest.approx(0.15)
    assert calibration_scores(probs, torch.tensor([1, 0]), 0.5)["bag_brier_tempered"] < found["bag_brier"]
