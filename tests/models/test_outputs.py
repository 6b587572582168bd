import torch

from kd_mil.models.outputs import MILOutput, class_scores, critical_logits, max_pooled


def output_of(instance_logits=None, class_attention=None):
    n = 4
    return MILOutput(
        torch.zeros(2, 3), torch.arange(4.0), torch.full((n,), 0.5), torch.zeros(2, 1), instance_logits, class_attention
    )


def test_critical_logits_are_one_instance_of_two_classes_and_the_best_of_each_class_of_more():
    sizes = torch.tensor([2, 2])
    two = torch.tensor([[5.0, 1], [0, 2], [7, 7], [9, 3]])
    assert critical_logits(output_of(two), sizes).tolist() == [[0, 2], [7, 7]]
    three = torch.tensor([[5.0, 1, 0], [0, 2, 4], [7, 7, 1], [9, 3, 2]])
    assert critical_logits(output_of(three), sizes).tolist() == [[5, 2, 4], [9, 7, 2]]
    assert critical_logits(output_of(), sizes) is None


def test_class_scores_fall_back_on_the_one_attention():
    assert class_scores(output_of(), 3).tolist() == [[0, 0], [1, 1], [2, 2], [3, 3]]
    by_class = torch.arange(12.0).view(4, 3)
    assert torch.equal(class_scores(output_of(class_attention=by_class), 3), by_class[:, 1:])


def test_a_bag_is_as_positive_as_its_most_positive_instance():
    """Bag 0: maxima 0.6 and 0.3 of the two positive classes, so positive by 0.6, two thirds of it for the first."""
    probs = torch.tensor([[0.3, 0.6, 0.1], [0.65, 0.05, 0.3], [1.0, 0.0, 0.0]], dtype=torch.float64)
    pooled = max_pooled(probs, torch.tensor([2, 1]))
    expected = torch.tensor([[0.4, 0.4, 0.2], [1.0, 0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(pooled, expected)
    torch.testing.assert_close(pooled.sum(1), torch.ones(2, dtype=torch.float64))


def test_with_two_classes_pooling_is_the_maximum():
    probs = torch.rand(7, 1, dtype=torch.float64)
    pooled = max_pooled(torch.cat([1 - probs, probs], 1), torch.tensor([3, 4]))
    peak = torch.stack([probs[:3].max(), probs[3:].max()])
    assert torch.equal(pooled, torch.stack([1 - peak, peak], 1))
