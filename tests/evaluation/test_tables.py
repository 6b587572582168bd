"""Rows collected in any order of batches come out once each, in the order of the data set."""

import torch

from kd_mil.data.bags import Bags
from kd_mil.evaluation.tables import PredictionTables, Rows, prediction_rows
from kd_mil.models.outputs import Prediction


def collected(batches, coords=None):
    sizes = torch.tensor([2, 1, 3])
    bags = Bags(torch.arange(6.0)[:, None], sizes, torch.tensor([0, 1, 1]), ["a", "b", "c"], coords=coords)
    bag_rows, instance_rows = Rows("bag"), Rows("instance")
    for indices in batches:
        batch = bags.batch(torch.tensor(indices))
        values = batch.instances[:, 0]  # an instance's value is its position: any mix-up shows
        bag_probs = torch.stack([-batch.bag_indices, batch.bag_indices], 1).double()
        teacher = Prediction(bag_probs, values / 10, values, attention=values / 100)
        student = Prediction(bag_probs, values / 10, values)
        rows = prediction_rows(batch, {"teacher": teacher, "student": student})
        bag_rows.add(rows.bags)
        instance_rows.add(rows.instances)
    return PredictionTables(bag_rows.collect(), instance_rows.collect())


def test_order_of_batches_does_not_matter():
    bags, instances = collected([[2], [0, 1]])
    assert bags["bag"].tolist() == [0, 1, 2]
    assert bags["label"].tolist() == [0, 1, 1]
    assert bags["teacher/probs"][:, 1].tolist() == [0, 1, 2]
    assert instances["instance"].tolist() == list(range(6))
    assert instances["bag"].tolist() == [0, 0, 1, 2, 2, 2]
    assert instances["student/scores"].tolist() == list(range(6))


def test_only_roles_with_attention_have_that_column():
    _, instances = collected([[0, 1, 2]])
    assert "teacher/attention" in instances
    assert "student/attention" not in instances


def test_coordinates_or_minus_one():
    _, without = collected([[0, 1, 2]])
    assert set(without["x"].tolist()) == set(without["y"].tolist()) == {-1}
    _, instances = collected([[1], [2], [0]], coords=torch.arange(12).reshape(6, 2))
    assert instances["x"].tolist() == [0, 2, 4, 6, 8, 10]
    assert instances["y"].tolist() == [1, 3, 5, 7, 9, 11]


def test_collecting_forgets_and_keeps_no_gradient():
    rows = Rows("index")
    for values in ([3, 0], [2, 1]):
        rows.add({"index": torch.tensor(values), "value": torch.tensor(values, dtype=torch.float32).requires_grad_()})
    table = rows.collect()
    assert table["value"].tolist() == [0, 1, 2, 3]
    assert not table["value"].requires_grad
    rows.add({"index": torch.tensor([7]), "value": torch.tensor([7.0])})
    assert rows.collect()["index"].tolist() == [7]


def test_roles_that_predicted():
    assert collected([[0, 1, 2]]).roles == ["teacher", "student"]
