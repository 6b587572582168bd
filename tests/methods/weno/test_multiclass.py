"""The extension of WENO to several positive classes: with two classes it is WENO; with more it tells them apart."""

import copy
from functools import partial

import pytest
import torch

from kd_mil.core.errors import UserError
from kd_mil.data.datamodules import Loading
from kd_mil.data.patches.digits_mil import DigitsClasses
from kd_mil.methods.weno.mining import HardPositiveMining
from kd_mil.methods.weno.multiclass import MultiClassWENO
from kd_mil.methods.weno.weno import WENO
from kd_mil.models.aggregators.clam import CLAM
from kd_mil.models.aggregators.dsmil import DSMIL
from kd_mil.models.encoders.small import SmallCNN
from kd_mil.models.heads import InstanceHead
from kd_mil.models.preprocess import Preprocess
from tests.support.tiny import TinyData, fit, no_mining, tiny_abmil, tiny_head, tiny_parts, tiny_splits


def make(method, seed=0, **switches):
    torch.manual_seed(seed)
    settings = {"aggregator": tiny_abmil(), "student_head": tiny_head(), "hpm": no_mining(), "seed": seed}
    return method(**tiny_parts() | settings | switches)


@pytest.mark.parametrize(
    "switches",
    [
        {},
        {"aggregator": partial(DSMIL), "normalisation": "bag", "negative_weight": 0.2},
        {"hpm": HardPositiveMining(mode="threshold", threshold=0.4, start_epoch=1), "shared_encoder": False},
        {"distillation": False},
    ],
    ids=["plain", "dsmil, per bag", "mined, two encoders", "undistilled"],
)
def test_with_two_classes_it_is_weno(switches):
    binary, general = make(WENO, **switches), make(MultiClassWENO, **switches)
    for model in (binary, general):
        fit(model, TinyData(tiny_splits()), epochs=2)
    for (name, one), other in zip(binary.named_parameters(), general.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4, msg=lambda text, n=name: f"{n}: {text}")
    bags = tiny_splits().bags.batch(torch.arange(5))
    for role, expected in binary.eval().predict_bags(bags).items():
        said = general.eval().predict_bags(bags)[role]
        torch.testing.assert_close(said.bag_probs, expected.bag_probs, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(said.instance_probs, expected.instance_probs, atol=1e-4, rtol=1e-4)


def test_pseudo_labels_come_from_the_attention_of_the_bags_class():
    """Scores and ranges set by hand: bag 0 of class 2, bag 1 of class 1, bag 2 negative."""
    model = make(MultiClassWENO, num_classes=3, aggregator=partial(DSMIL))
    model.memory.allocate(num_bags=3, num_instances=4)
    model.memory.low.copy_(torch.tensor([[0.0, 10.0]]))
    model.memory.high.copy_(torch.tensor([[4.0, 20.0]]))
    model.memory.scores.copy_(torch.tensor([[9.0, 15.0], [1.0, 99.0], [4.0, 20.0], [0.0, 8.0]]))
    splits = tiny_splits(classes=3)
    batch = splits.bags.instance_batch(torch.arange(4))
    batch = batch._replace(labels=torch.tensor([2, 1, 0, 2]), instance_ids=torch.arange(4))
    model.student_loss(batch)
    assert model.notes.pseudo_labels[-1][1].tolist() == [0.5, 0.25, 0.0, 0.0]


def test_class_wise_ranges_are_those_of_the_training_scores():
    model = make(MultiClassWENO, num_classes=3, aggregator=partial(DSMIL))
    splits = tiny_splits(classes=3)
    data = TinyData(splits)
    seen = []

    class Watch(MultiClassWENO):
        def scores_of(self, output):
            result = super().scores_of(output)
            if self.training:
                seen.append(result.detach())
            return result

    model.__class__ = Watch
    fit(model, data)
    everything = torch.cat(seen)
    torch.testing.assert_close(model.memory.low[0], everything.amin(0))
    torch.testing.assert_close(model.memory.high[0], everything.amax(0))
    assert model.memory.scores[splits.bags.instances_of(splits.train)].isfinite().all()


def test_instance_labels_cannot_reach_the_weights():
    splits, states = tiny_splits(classes=3), []
    for change in (lambda y: y, lambda y: torch.full_like(y, -1), lambda y: 1 - y):
        bags = copy.copy(splits.bags)
        object.__setattr__(bags, "instance_labels", change(splits.bags.instance_labels))
        model = make(MultiClassWENO, num_classes=3, aggregator=partial(CLAM, branches="multi", hidden=(8,)))
        fit(model, TinyData(splits._replace(bags=bags)), epochs=2)
        states.append(model.state_dict())
    for state in states[1:]:
        assert all(torch.equal(state[name], states[0][name]) for name in state)


@pytest.mark.slow
def test_three_tumour_like_classes_of_digits_are_told_apart_from_bag_labels_alone():
    """Digits 7, 8, 9 in bags of mostly other digits: the student finds and names them."""
    data = DigitsClasses(Loading(instances_per_step=128))
    data.setup()
    torch.manual_seed(0)
    model = MultiClassWENO(
        **data.model_inputs,
        encoder=partial(SmallCNN, channels=[16, 32], hidden=64),
        aggregator=partial(CLAM, branches="multi", hidden=(64,), attention_dim=32, dropout=0.0),
        student_head=partial(InstanceHead, hidden=(64,)),
        hpm=no_mining(),
        preprocess=Preprocess(standardise=True),
        optimizer=partial(torch.optim.AdamW, lr=1e-3),
    )
    metrics = fit(model, data, epochs=30).callback_metrics
    assert metrics["val/student/instance_auroc"] > 0.85
    assert metrics["val/student/instance_class_auroc"] > 0.85


def test_what_it_does_not_do_is_refused():
    with pytest.raises(UserError, match="weno_multiclass"):
        make(WENO, num_classes=3)
    with pytest.raises(UserError, match="attention_from=bank"):
        make(MultiClassWENO, attention_from="recompute")
