"""Rows, tables and overlays of one slide, from predictions written down by hand."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from kd_mil.core.errors import UserError
from kd_mil.evaluation.thresholds import decided, decision_text
from kd_mil.models.outputs import Prediction
from kd_mil.prediction.decisions import slide_verdict, verdict
from kd_mil.prediction.outputs import (
    Model,
    OutputSettings,
    instance_table,
    path_class,
    slide_row,
    write_heatmaps,
    write_overlay,
    write_slides_table,
    write_table,
)
from kd_mil.prediction.tile_geometry import TileGeometry, blank_picture

MODEL = Model(
    ["normal", "tumour"], {"teacher": 0.7, "student": 0.25}, {"teacher": 0.1, "student": 0.6}, "weno_dsmil", "abc"
)
GEOMETRY = TileGeometry(np.array([[0, 0], [512, 0], [0, 512]]), 512, extent=(2048, 1024))
PREDICTIONS = {
    "teacher": Prediction(
        torch.tensor([[0.4, 0.6]], dtype=torch.float64),
        torch.tensor([0.1, 0.2, 1.0]),
        torch.tensor([-1.0, 0.0, 8.0]),
        torch.tensor([0.1, 0.2, 0.7]),
    ),
    "student": Prediction(
        torch.tensor([[0.1, 0.9]], dtype=torch.float64), torch.tensor([0.5, 0.4, 0.9]), torch.tensor([0.5, 0.4, 0.9])
    ),
}


def test_one_role_decides_and_the_other_says_what_it_thinks() -> None:
    """The teacher's 0.6 is below its 0.7, so the slide is normal, whatever the student says."""
    model = replace(MODEL, decides="teacher", operating_point="f1", temperatures={"teacher": 2.0})
    row = slide_row("s", PREDICTIONS, 3, model)
    assert {name: value for name, value in row.items() if name.endswith("_decision")} == {"teacher_decision": "normal"}
    assert row["teacher_calibrated"] == pytest.approx(1 / (1 + (0.4 / 0.6) ** 0.5))
    assert "student_calibrated" not in row
    assert verdict("teacher", [0.4, 0.6], model) == "teacher: normal (tumour 0.60, threshold 0.70)"
    assert verdict("student", [0.1, 0.9], model) == "student: tumour 0.90"


def test_a_row_by_hand() -> None:
    """Where nobody is said to decide, each role does at its own threshold: the teacher's 0.6 is below 0.7."""
    assert slide_row("s", PREDICTIONS, 3, MODEL) == {
        "slide_id": "s",
        "tiles": 3,
        "teacher_prob": 0.6,
        "teacher_threshold": 0.7,
        "teacher_decision": "normal",
        "student_prob": 0.9,
        "student_threshold": 0.25,
        "student_decision": "tumour",
    }
    probs = {"teacher": [0.4, 0.6], "student": [0.1, 0.9]}
    assert slide_verdict(probs, MODEL) == "student: tumour (tumour 0.90, threshold 0.25)"
    model = replace(MODEL, decides="teacher")
    assert slide_verdict(probs, model) == "teacher: normal (tumour 0.60, threshold 0.70)"


def test_the_threshold_itself_is_positive() -> None:
    assert decided([0.75, 0.25], 0.25) == 1
    assert decided([0.76, 0.24], 0.25) == 0
    assert decision_text([0.3, 0.3, 0.4], 0.5, "abc") == "c (0.40)"


def test_three_classes_go_by_the_largest_probability() -> None:
    model = Model(["a", "b", "c"], {"model": 0.5}, {"model": 0.5}, "mil_dsmil", "abc")
    class_probs = torch.tensor([[0.1, 0.2, 0.9], [0.8, 0.1, 0.3]])
    probs = torch.tensor([[0.3, 0.3, 0.4]], dtype=torch.float64)
    prediction = Prediction(probs, torch.tensor([0.9, 0.3]), torch.zeros(2), None, class_probs)
    row = slide_row("s", {"model": prediction}, 2, model)
    assert row["model_decision"] == "c"
    assert [row[f"model_prob_{name}"] for name in "abc"] == [0.3, 0.3, 0.4]
    assert "model_threshold" not in row
    table = instance_table({"model": prediction}, None, 2, model.class_names)
    assert table["model_prob_c"].tolist() == pytest.approx([0.9, 0.3])


def test_an_instance_table_by_hand() -> None:
    table = instance_table(PREDICTIONS, GEOMETRY, 3, MODEL.class_names)
    where, roles = ["instance_id", "x", "y", "tile_size_level0"], ["teacher_prob", "teacher_score"]
    assert table.columns.tolist() == [*where, "attention", *roles, "student_prob", "student_score"]
    last = table.iloc[2]
    assert last[where].tolist() == [2, 0, 512, 512]
    assert last[["attention", "teacher_prob", "teacher_score", "student_prob"]].tolist() == pytest.approx(
        [0.7, 1, 8, 0.9]
    )


def test_instances_without_coordinates() -> None:
    table = instance_table(PREDICTIONS, None, 3, MODEL.class_names)
    assert (table[["x", "y", "tile_size_level0"]] == -1).all(axis=None)


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_tables_read_back(tmp_path: Path, kind: str) -> None:
    table = instance_table(PREDICTIONS, GEOMETRY, 3, MODEL.class_names)
    path = write_table(tmp_path, "s", table, kind)
    assert path.name == f"s.{kind}"
    pd.testing.assert_frame_equal(getattr(pd, f"read_{kind}")(path), table, check_dtype=kind == "parquet")


def test_the_overlay_follows_the_student(tmp_path: Path) -> None:
    path = write_overlay(tmp_path, "s", PREDICTIONS, GEOMETRY._replace(bounds_offset=(0, 0)), MODEL, OutputSettings())
    features = json.loads(path.read_text())["features"]
    kinds = [feature["properties"]["objectType"] for feature in features]
    assert kinds == ["annotation", "detection", "detection", "detection"]
    region, *tiles = (feature["properties"] for feature in features)
    assert region["measurements"]["tiles"] == 2  # 0.5 and 0.9, which touch
    assert [tile["classification"]["name"] for tile in tiles] == ["Tumor", "Other", "Tumor"]
    assert tiles[2]["measurements"] == pytest.approx({"teacher_prob": 1, "teacher_attention": 0.7, "student_prob": 0.9})
    assert tiles[0]["metadata"] == {"model": "weno_dsmil", "run": "abc", "threshold": "0.5"}


def test_the_overlay_follows_the_threshold_that_validation_chose(tmp_path: Path) -> None:
    """0.6 for the student: of 0.5, 0.2 and 0.9 the last alone is above."""
    settings = OutputSettings(region_threshold=None)
    path = write_overlay(tmp_path, "s", PREDICTIONS, GEOMETRY, MODEL, settings)
    region, *tiles = (feature["properties"] for feature in json.loads(path.read_text())["features"])
    assert region["measurements"]["tiles"] == 1
    assert [tile["classification"]["name"] for tile in tiles] == ["Other", "Other", "Tumor"]
    assert tiles[0]["metadata"]["threshold"] == "0.6"


def test_overlay_settings(tmp_path: Path) -> None:
    settings = OutputSettings(region_threshold=0.95, region_class="Stroma", compress=True)
    path = write_overlay(tmp_path, "s", PREDICTIONS, GEOMETRY._replace(bounds_offset=(-100, -50)), MODEL, settings)
    tiles = json.loads(gzip.decompress(path.read_bytes()))["features"]
    assert len(tiles) == 3
    assert tiles[0]["geometry"]["coordinates"][0][0] == [100, 50]
    path = write_overlay(tmp_path, "s", PREDICTIONS, GEOMETRY, MODEL, settings)
    assert json.loads(gzip.decompress(path.read_bytes()))["features"][0]["geometry"]["coordinates"][0][0] == [0, 0]


def test_positions_on_a_cropped_slide_are_worth_a_word(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    """QuPath shows the scanned area alone: positions that count from the slide's own corner are shifted there."""
    bounded = GEOMETRY._replace(bounds_offset=(100, 50))
    path = write_overlay(tmp_path, "s", PREDICTIONS, bounded, MODEL, OutputSettings())
    assert json.loads(path.read_text())["features"][1]["geometry"]["coordinates"][0][0] == [-100, -50]
    write_overlay(tmp_path, "s", PREDICTIONS, GEOMETRY._replace(bounds_offset=(0, 0)), MODEL, OutputSettings())
    assert not recwarn
    path = write_overlay(tmp_path, "s", PREDICTIONS, bounded, MODEL, OutputSettings(in_bounds=False))
    assert "in_bounds=true" in str(recwarn.pop().message)
    assert json.loads(path.read_text())["features"][1]["geometry"]["coordinates"][0][0] == [0, 0]


def test_qupath_knows_tumours_by_its_own_name() -> None:
    assert path_class(["normal", "tumour"], None).name == path_class(["normal", "Tumor"], None).name == "Tumor"
    assert path_class(["benign", "malignant"], None).name == "malignant"
    assert path_class(["a", "b", "c"], None).name == "Important"
    assert path_class(["a", "b", "c"], "b").name == "b"


def test_heat_maps_of_all_roles_on_a_blank_canvas(tmp_path: Path) -> None:
    picture = blank_picture(GEOMETRY, 256)
    assert picture.thumbnail.shape == (128, 256, 3)
    paths = write_heatmaps(tmp_path, "s", PREDICTIONS, GEOMETRY, picture, MODEL)
    assert [path.name for path in paths] == ["s_teacher.png", "s_student.png"]
    for path in paths:
        map_only = np.asarray(Image.open(path).convert("RGB"), float)[60:, : int(Image.open(path).width * 0.75)]
        coloured = np.ptp(map_only, axis=-1) > 4  # low scores are faint
        rows, columns = (np.flatnonzero(coloured.any(axis=axis)) for axis in (1, 0))
        height, width = coloured.shape
        assert coloured[: height // 2, : width // 4].mean() > 0.5
        assert columns[-1] < 0.75 * width  # the right half of the slide has no tiles
        assert rows[-1] > 0.8 * height


def test_the_slides_table_keeps_a_line_for_every_slide(tmp_path: Path) -> None:
    rows = [{"slide_id": "a", "tiles": None, "note": "damaged"}, slide_row("s", PREDICTIONS, 3, MODEL) | {"note": ""}]
    write_slides_table(tmp_path / "slides.csv", rows)
    table = pd.read_csv(tmp_path / "slides.csv")
    assert table.columns[-1] == "note"
    assert table.student_prob.isna().tolist() == [True, False]
    assert (tmp_path / "slides.csv").read_text().splitlines()[2].startswith("s,3,")


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"table": "xlsx"}, "parquet or csv"), ({"region_threshold": 1.5}, "region_threshold=1.5")],
)
def test_settings_out_of_range(settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        OutputSettings(**settings)
