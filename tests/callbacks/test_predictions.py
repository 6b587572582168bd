"""bags.csv and instances.parquet from hand-made tables: columns, ids counted within bags, unknowns, several classes."""

from dataclasses import replace

import pandas as pd
import pytest
import torch

from kd_mil.callbacks.predictions import WritePredictions, bag_frame, instance_frame
from kd_mil.data.bags import Bags
from kd_mil.evaluation.tables import PredictionTables
from tests.support.stand_ins import Method, trainer_of


@pytest.fixture
def bags():
    return Bags(
        instances=torch.zeros(5, 3),
        sizes=torch.tensor([2, 3]),
        labels=torch.tensor([0, 1]),
        bag_ids=["left", "right"],
        coords=torch.tensor([[0, 0], [8, 0], [0, 8], [8, 8], [16, 8]]),
    )


@pytest.fixture
def tables():
    """Predictions of the second bag alone, as when it is the only test bag."""
    instances = {
        "bag": torch.tensor([1, 1, 1]),
        "instance": torch.tensor([2, 3, 4]),
        "label": torch.tensor([0, 1, -1]),
        "x": torch.tensor([0, 8, 16]),
        "y": torch.tensor([8, 8, 8]),
        "teacher/probs": torch.tensor([0.0, 1.0, 1.0]),
        "teacher/scores": torch.tensor([-1.0, 2.0, 3.0]),
        "teacher/attention": torch.tensor([0.2, 0.3, 0.5]),
        "student/probs": torch.tensor([0.1, 0.9, 0.4]),
        "student/scores": torch.tensor([0.1, 0.9, 0.4]),
    }
    probs = torch.tensor([[0.25, 0.75]], dtype=torch.float64)
    rows = {"bag": torch.tensor([1]), "label": torch.tensor([1]), "teacher/probs": probs, "student/probs": 1 - probs}
    return PredictionTables(rows, instances)


def test_bag_rows(bags, tables):
    frame = bag_frame(tables, bags)
    assert frame.to_dict("list") == {
        "bag_id": ["right"],
        "case_id": ["right"],
        "label": [1],
        "teacher_prob": [0.75],
        "student_prob": [0.25],
    }


def test_bag_rows_name_their_case(bags, tables):
    assert bag_frame(tables, replace(bags, case_ids=["one", "007"])).case_id.tolist() == ["007"]


def test_more_than_two_classes_have_a_column_each(bags, tables):
    three = Bags(bags.instances, bags.sizes, bags.labels, bags.bag_ids, class_names=("none", "a", "b"))
    tables = tables._replace(
        bags={"bag": torch.tensor([1]), "label": torch.tensor([2]), "model/probs": torch.eye(3)[:1]}
    )
    assert list(bag_frame(tables, three).columns) == [
        "bag_id",
        "case_id",
        "label",
        *(f"model_prob_{c}" for c in three.class_names),
    ]


def test_instance_ids_count_within_their_bag(bags, tables):
    frame = instance_frame(tables, bags)
    assert frame.bag_id.tolist() == ["right"] * 3
    assert frame.instance_id.tolist() == [0, 1, 2]
    assert frame.label.tolist() == [0, 1, -1]
    assert frame[["x", "y"]].to_numpy().tolist() == [[0, 8], [8, 8], [16, 8]]
    assert frame.attention.tolist() == pytest.approx([0.2, 0.3, 0.5])
    assert frame.teacher_score.tolist() == [-1, 2, 3]


def test_files_are_written_whole_by_the_first_rank_only(bags, tables, tmp_path):
    method = Method(roles=("teacher", "student"), tables={"test": tables})
    WritePredictions(str(tmp_path)).on_test_end(trainer_of(bags, rank=1), method)
    assert not list(tmp_path.iterdir())
    WritePredictions(str(tmp_path)).on_test_end(trainer_of(bags), method)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bags.csv", "instances.parquet"]
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "bags.csv"), bag_frame(tables, bags))
    assert len(pd.read_parquet(tmp_path / "instances.parquet")) == 3


def test_attention_is_that_of_the_first_role_that_has_any(bags, tables):
    """As in the tables of prediction; the last one's would be another network's, by the order of the roles."""
    tables.instances["student/attention"] = torch.tensor([0.6, 0.3, 0.1])
    assert instance_frame(tables, bags).attention.tolist() == pytest.approx([0.2, 0.3, 0.5])
