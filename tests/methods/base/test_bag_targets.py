"""Class weights and label smoothing in the losses of bags, by hand and in every method that has one."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hydra.utils import get_class
from omegaconf import OmegaConf

from kd_mil.cli.command import CONFIG_DIR
from kd_mil.core.errors import UserError
from kd_mil.methods.base.bag_losses import BagTargets, bag_cross_entropy, bag_loss, binary_cross_entropy
from kd_mil.methods.base.bag_method import BagMethod
from kd_mil.methods.base.bag_targets import learn_from, weights_of
from kd_mil.methods.baselines.mil import MIL
from kd_mil.methods.baselines.supervised import Supervised
from kd_mil.methods.weno.multiclass import MultiClassWENO
from tests.support.methods import (
    TaughtData,
    make_d2l,
    make_ins,
    make_low_magnification,
    make_mhim,
    make_mil,
    make_rnn_mil,
    make_sela_mil,
    make_weno,
)
from tests.support.tiny import fit, tiny_abmil, tiny_head, tiny_parts, tiny_splits

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


def test_soft_labels_weigh_as_their_bags():
    """Log-odds log 3 is probability 3/4; its label 0.2 becomes 0.26 where a fifth goes to both classes."""
    margins, labels = torch.tensor([math.log(3), 0.0]), torch.tensor([0.2, 0.5])
    bags = torch.tensor([0, 1])

    def expected(label):
        return -label * math.log(3 / 4) - (1 - label) * math.log(1 / 4)

    plain = binary_cross_entropy(margins, labels, bags)
    assert plain.item() == pytest.approx((expected(0.2) + math.log(2)) / 2)
    targets = BagTargets(torch.tensor([1.0, 3.0]), 0.2)
    weighted = binary_cross_entropy(margins, labels, bags, targets)
    assert weighted.item() == pytest.approx((expected(0.26) + 3 * math.log(2)) / 2)


MADE = {
    "mil": make_mil,
    "mhim": make_mhim,
    "weno": make_weno,
    "rnn_mil": make_rnn_mil,
    "d2l": partial(make_d2l, teacher_epochs=1, student_epochs=1, kd={"bag_weight": 0, "instance_weight": 0}),
    "ins": partial(make_ins, warm_up=1),
    "ins, bags only through instances": partial(make_ins, bag_weight=0),
    "sela_mil": make_sela_mil,
    "aggregator at low magnification": partial(make_low_magnification, aggregator=tiny_abmil()),
}


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_equal_weights_train_as_none_and_others_do_not(make):
    """In every method that bag labels train, and in each of its phases."""

    def trained(**how):
        method = make()
        learn_from(method, torch.tensor([0, 1]), **({"class_weights": None, "label_smoothing": 0.0} | how))
        fit(method, TaughtData(tiny_splits()), epochs=2)
        return [torch.cat([weights.flatten() for weights in part.parameters()]) for part in method.parts()]

    plain = trained()
    for part, same in zip(plain, trained(class_weights=[1, 1]), strict=True):
        torch.testing.assert_close(part, same)
    for how in ({"class_weights": [1, 3]}, {"label_smoothing": 0.2}):
        differs = [not torch.allclose(*pair) for pair in zip(plain, trained(**how), strict=True)]
        assert all(differs) or differs == [False, False, True], how  # tiles at low magnification learn no labels


def test_no_method_on_bags_is_left_out():
    named = (OmegaConf.load(path).get("_target_") for path in (CONFIG_DIR / "method").glob("*.yaml"))
    on_bags = {method for method in map(get_class, filter(None, named)) if issubclass(method, BagMethod)}
    assert on_bags - {Supervised, MultiClassWENO} == {type(make()) for make in MADE.values()}


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
    for untaught in (Supervised(**tiny_parts(), student_head=tiny_head()), make_low_magnification()):
        with pytest.raises(UserError, match=f"{type(untaught).__name__} learns from no labels of bags"):
            learn_from(untaught, LABELS, "balanced", 0.0)
