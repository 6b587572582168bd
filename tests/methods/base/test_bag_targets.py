"""Class weights and label smoothing in the losses of bags, by hand and in every method that has one."""

import pytest
import torch
import torch.nn.functional as F

from kd_mil.core.errors import UserError
from kd_mil.methods.base.bag_losses import BagTargets, bag_cross_entropy, bag_loss
from kd_mil.methods.base.bag_targets import learn_from, weights_of
from kd_mil.methods.baselines.mil import MIL
from kd_mil.methods.baselines.supervised import Supervised
from tests.support.tiny import TinyData, fit, tiny_abmil, tiny_head, tiny_parts, tiny_splits

LOGITS, LABELS = torch.tensor([[0.0, 1.0], [2.0, 0.0]]), torch.tensor([1, 1])


def test_a_weight_counts_in_a_batch_of_one_bag():
    plain = F.cross_entropy(LOGITS, LABELS, reduction="none")
    assert torch.equal(bag_cross_entropy(LOGITS, LABELS), plain)
    weighted = bag_cross_entropy(LOGITS[:1], LABELS[:1], BagTargets(torch.tensor([1.0, 3.0])))
    assert weighted.item() == pytest.approx(3 * plain[0].item())


def test_smoothing_by_hand_in_both_streams():
    """0.2 of the label to two classes alike: 0.9 and 0.1."""
    logs = LOGITS.log_softmax(1)
    expected = -(0.9 * logs[:, 1] + 0.1 * logs[:, 0])
    targets = BagTargets(None, 0.2)
    assert bag_cross_entropy(LOGITS, LABELS, targets).tolist() == pytest.approx(expected.tolist())
    assert bag_loss(LOGITS, LABELS, LOGITS, 0.3, targets).item() == pytest.approx(expected.mean().item())


def test_balanced_weights_have_a_mean_of_one_over_the_bags():
    labels = torch.tensor([0, 0, 0, 1])
    weights = weights_of("balanced", labels, 2)
    assert weights.tolist() == pytest.approx([4 / 6, 2])
    assert weights[labels].mean().item() == pytest.approx(1)
    assert weights_of([1, 3], labels, 2).tolist() == [1, 3]


def test_equal_weights_train_as_none_and_others_do_not():
    def trained(**how):
        torch.manual_seed(0)
        method = MIL(**tiny_parts(), aggregator=tiny_abmil())
        learn_from(method, torch.tensor([0, 1]), **({"class_weights": None, "label_smoothing": 0.0} | how))
        fit(method, TinyData(tiny_splits()))
        return torch.cat([weights.flatten() for weights in method.parameters()])

    plain = trained()
    torch.testing.assert_close(plain, trained(class_weights=[1, 1]))
    assert not torch.allclose(plain, trained(class_weights=[1, 3]))
    assert not torch.allclose(plain, trained(label_smoothing=0.2))


def test_mistakes_are_one_line():
    method = MIL(**tiny_parts(), aggregator=tiny_abmil())
    for given, message in (
        ([1, 2, 3], "each of the 2 classes"),
        ("equal", "give balanced"),
        ([-1, 1], "class_weights"),
    ):
        with pytest.raises(UserError, match=message):
            learn_from(method, LABELS, given, 0.0)
    with pytest.raises(UserError, match="label_smoothing=1"):
        learn_from(method, LABELS, None, 1)
    with pytest.raises(UserError, match="Supervised does not heed them"):
        learn_from(Supervised(**tiny_parts(), student_head=tiny_head()), LABELS, "balanced", 0.0)
