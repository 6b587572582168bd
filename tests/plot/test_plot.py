"""Pictures of a folder of predictions as axes, with numbers that can be counted by hand."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

import kd_mil
from kd_mil.core.errors import UserError
from kd_mil.core.run_files import write_json
from kd_mil.prediction.folder import Predictions
from tests.support.predicted import predicted_folder

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def predictions(tmp_path_factory):
    return Predictions(predicted_folder(tmp_path_factory.mktemp("out"), ["a", "b"], 8, 6))


@pytest.fixture
def table(tmp_path):
    """Eight slides of known probabilities, without tiles."""
    probs = [0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9]
    truth = ["n", "n", "t", "n", "t", "n", "t", "t"]
    rows = {"slide_id": list("abcdefgh"), "student_prob": probs, "student_threshold": 0.5, "label": truth}
    rows["student_decision"] = ["t" if prob >= 0.5 else "n" for prob in probs]
    pd.DataFrame(rows).to_csv(tmp_path / "slides.csv", index=False)
    write_json(tmp_path / "model.json", {"class_names": ["n", "t"]})
    return Predictions(tmp_path), np.array(probs), np.array(truth) == "t"


def test_a_heat_map_is_the_one_of_the_command(predictions):
    axes = kd_mil.plot.heatmap(predictions["a"], role="teacher")
    assert axes.get_title().splitlines() == ["a", predictions["a"].panel.verdict]
    drawn = axes.images[1]
    assert drawn.get_clim() == (0, 1)
    assert float(drawn.get_array().max()) == pytest.approx(predictions["a"].tiles.teacher_prob.max())
    again = kd_mil.plot.heatmap(predictions["b"], ax=axes.figure.add_subplot())
    assert again.figure is axes.figure


def test_tiles_come_with_their_scores(predictions):
    highest, lowest = (kd_mil.plot.top_tiles(predictions["a"], lowest=low) for low in (False, True))
    scores = [[float(axes.get_title()) for axes in panels] for panels in (highest, lowest)]
    assert len(highest) == len(lowest) == 8
    assert scores[0] == sorted(scores[0], reverse=True)
    assert scores[1] == sorted(scores[1])
    assert scores[0][0] == pytest.approx(predictions["a"].tiles.student_prob.max(), abs=5e-4)


def test_roc_curves_have_the_area_of_scikit_learn(table):
    predictions, probs, positive = table
    axes = kd_mil.plot.roc(predictions)
    [label] = axes.get_legend_handles_labels()[1]
    assert label == f"student {roc_auc_score(positive, probs):.3f}"
    flipped = {name: "n" if yes else "t" for name, yes in zip("abcdefgh", positive, strict=True)}
    [label] = kd_mil.plot.roc(predictions, labels=flipped).get_legend_handles_labels()[1]
    assert label == f"student {1 - roc_auc_score(positive, probs):.3f}"


def test_reliability_by_hand(table):
    predictions, _, _ = table
    axes = kd_mil.plot.reliability(predictions, bins=2)
    assert axes.lines[1].get_xydata() == pytest.approx(np.array([[0.25, 0.25], [0.75, 0.75]]))
    assert axes.get_title() == "student: 8 slides, calibration error 0.000"


def test_each_mistake_is_one_line(predictions, table, tmp_path):
    with pytest.raises(UserError, match="no slide 'c'"):
        predictions["c"]
    with pytest.raises(UserError, match="has no prediction: slide 'damaged"):
        _ = predictions["damaged"].tiles
    with pytest.raises(UserError, match="no role 'model'; there are teacher, student"):
        kd_mil.plot.heatmap(predictions["a"], role="model")
    with pytest.raises(UserError, match="none of the predicted slides has a label"):
        kd_mil.plot.roc(table[0], labels={"x": "t"})
    with pytest.raises(UserError, match="of both classes"):
        kd_mil.plot.roc(table[0], labels={"a": "t", "b": "t"})
    with pytest.raises(UserError, match="label 'x' is no class of the model: n, t"):
        kd_mil.plot.roc(table[0], labels={"a": "t", "b": "x"})
    (tmp_path / "model.json").unlink()
    with pytest.raises(UserError, match=r"model\.json is missing"):
        kd_mil.plot.roc(Predictions(tmp_path))
    with pytest.raises(UserError, match=r"slides\.csv does not exist"):
        Predictions(tmp_path / "none")


def test_matplotlib_waits_until_something_is_drawn():
    code = "import sys, kd_mil; kd_mil.plot; kd_mil.Predictions; print(*({'matplotlib', 'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
