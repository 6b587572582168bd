"""Predictions collected in any order of batches come out once each, in the order of the data set."""

import torch

from kd_mil.data.bags import Bags
from kd_mil.evaluation.tables import PredictionCollector
from kd_mil.models.outputs import Prediction


def collected(batches, coords=None):
    sizes = torch.tensor([2, 1, 3])
    bags = Bags(torch.arange(6.0)[:, None], sizes, torch.tensor([0, 1, 1]), ["a", "b", "c"], coords=coords)
    collector = PredictionCollector()
    for indices in batches:
        batch = bags.batch(torch.tensor(indices))
        values = batch.instances[:, 0]  # an instance's value is its position: any mix-up shows
        bag_probs = torch.stack([-batch.bag_indices, batch.bag_indices], 1).double()
        teacher = Prediction(bag_probs, values / 10, values, attention=values / 100)
        collector.add(batch, {"teacher": teacher, "student": Prediction(bag_probs, values / 10, values)})
    return collector.collect(), collector


def test_order_of_batches_does_not_matter():
    (bags, instances), _ = collected([[2], [0, 1]])
    assert bags["bag"].tolist() == [0, 1, 2]
    assert bags["label"].tolist() == [0, 1, 1]
    assert bags["teacher/probs"][:, 1].tolist() == [0, 1, 2]
    assert instances["instance"].tolist() == list(range(6))
    assert instances["bag"].tolist() == [0, 0, 1, 2, 2, 2]
    assert instances["student/scores"].tolist() == list(range(6))


def test_only_roles_with_attention_have_that_column():
    (_, instances), _ = collected([[0, 1, 2]])
    assert "teacher/attention" in instances
    assert "student/attention" not in instances


def test_coordinates_or_minus_one():
    (_, without), _ = collected([[0, 1, 2]])
    assert set(without["x"].tolist()) == set(without["y"].tolist()) == {-1}
    (_, instances), _ = collected([[1], [2], [0]], coords=torch.arange(12).reshape(6, 2))
    assert instances["x"].tolist() == [0, 2, 4, 6, 8, 10]
    assert instances["y"].tolist() == [1, 3, 5, 7, 9, 11]


def test_collecting_forgets():
    _, collector = collected([[0], [1], [2]])
    assert not collector._bags
    assert not collector._instances
