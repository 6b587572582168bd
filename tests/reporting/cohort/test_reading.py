"""Damaged predictions are one line that says where."""

import json

import pytest

from kd_mil.core.errors import UserError
from kd_mil.reporting.cohort.reading import read_predictions
from tests.support.runs import make_run


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ("b3,x", r"bags.csv, line 5: column 'label' holds x, no class below 2"),
        ("b3,", r"line 5: column 'label' holds an empty cell"),
        ("b3,nan", r"line 5: column 'label' holds nan"),
        ("b3,7", r"line 5: column 'label' holds 7"),
        ("b3,-1", r"line 5: column 'label' holds -1"),
        ("b3,0.5", r"line 5: column 'label' holds 0.5"),
        ("b2,1", r"line 5: 'b2' is listed twice"),
    ],
)
def test_a_damaged_table_of_bags(tmp_path, cells, message):
    run = make_run(tmp_path, "weno", [], 0, 1.0)
    assert read_predictions(run).labels.tolist() == [0, 1] * 20
    text = (run / "bags.csv").read_text()
    (run / "bags.csv").write_text(text.replace("b3,1", cells))
    with pytest.raises(UserError, match=message):
        read_predictions(run)


GOOD = {"class_names": ["a", "b"], "decides": "t", "operating_point": "youden", "thresholds": {"t": 0.5}}


@pytest.mark.parametrize(
    "damage",
    [
        {"thresholds": {"t": "x"}},
        {"thresholds": {"t": None}},
        {"thresholds": 0.5},
        {"thresholds": {}},
        {"case_thresholds": {"s": 0.5}},
        {"decides": "nobody"},
        {"class_names": ["a"]},
        {"class_names": None},
    ],
)
def test_a_damaged_model(tmp_path, damage):
    (tmp_path / "slides.csv").write_text("slide_id,t_prob,note\ns0,0.2,\ns1,0.7,\n")
    (tmp_path / "model.json").write_text(json.dumps(GOOD))
    assert read_predictions(tmp_path).decided("t").tolist() == [0, 1]
    (tmp_path / "model.json").write_text(json.dumps(GOOD | damage))
    with pytest.raises(UserError, match=r"model.json is damaged: predict again with overwrite=true"):
        read_predictions(tmp_path)


def test_a_slide_that_is_listed_twice(tmp_path):
    (tmp_path / "slides.csv").write_text("slide_id,t_prob,note\ns0,0.2,\ns0,0.7,\n")
    (tmp_path / "model.json").write_text(json.dumps(GOOD))
    with pytest.raises(UserError, match=r"slides.csv, line 3: 's0' is listed twice"):
        read_predictions(tmp_path)


@pytest.mark.parametrize(
    ("overrides", "configuration", "pooling"),
    [
        ([], None, None),
        (["data.case_pooling=mean"], None, "mean"),
        ([], "data: {report_by: case, case_pooling: mean}", "mean"),
        ([], "data: {report_by: slide, case_pooling: mean}", None),
        (["data.case_pooling=mean"], "data: [", "mean"),
    ],
)
def test_cases_of_a_run_are_pooled_as_its_configuration_says(tmp_path, overrides, configuration, pooling):
    """An experiment of one's own may say so, which no override shows."""
    run = make_run(tmp_path, "weno", overrides, 0, 1.0)
    if configuration is not None:
        (run / ".hydra").mkdir()
        (run / ".hydra" / "config.yaml").write_text(configuration)
    assert read_predictions(run).case_pooling == pooling
