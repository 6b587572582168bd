import pytest
import torch

from kd_mil.evaluation.metrics import bag_scores
from kd_mil.evaluation.ties import without_rounding


def probs_of(*log_odds):
    positive = torch.tensor(log_odds, dtype=torch.float64).sigmoid()
    return torch.stack([1 - positive, positive], 1)


def test_rounding_errors_are_ties_and_rank_nothing():
    """Four bags that nothing tells apart; by their last digits the negative ones would rank higher."""
    probs, labels = probs_of(0.5, 0.5 + 4e-6, 0.5 + 2e-6, 0.5 + 8e-6), torch.tensor([1, 0, 1, 0])
    assert bag_scores(probs, labels, 0.5)["bag_auroc"] == 0
    assert bag_scores(without_rounding(probs), labels, 0.5)["bag_auroc"] == 0.5


def test_what_differs_by_more_stays_to_the_last_bit():
    probs = probs_of(-30.0, -3.0, 0.1, 0.1002, 5.0, 5.001, 30.0, 31.0)
    assert torch.equal(without_rounding(probs), probs)


def test_a_chain_of_small_steps_is_not_one_tie():
    """Each within the tolerance of the next, the ends far apart."""
    merged = without_rounding(probs_of(*(0.6e-5 * step for step in range(100))))
    assert 30 < len(merged.unique(dim=0)) < 70


def test_several_classes_tie_only_where_all_agree():
    probs = torch.tensor([[0.2, 0.3, 0.5], [0.3, 0.2, 0.5], [0.2, 0.3 + 1e-7, 0.5 - 1e-7]], dtype=torch.float64)
    merged = without_rounding(probs)
    assert not torch.equal(merged[0], merged[1])


@pytest.mark.parametrize("certain", [[[0.0, 1.0], [0.0, 1.0]], [[1.0, 0.0], [1.0, 0.0]]])
def test_certainty_is_no_special_case(certain):
    probs = torch.tensor(certain, dtype=torch.float64)
    assert torch.equal(without_rounding(probs), probs)
