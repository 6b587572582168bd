"""Bag classifiers with more than two classes, and with a loss of their own."""

from functools import partial

import pytest
import torch

from kd_mil.callbacks.predictions import instance_frame
from kd_mil.methods.baselines.mil import MIL
from kd_mil.methods.weno.weno import WENO
from kd_mil.models.aggregators.acmil import ACMIL
from kd_mil.models.aggregators.chi_mil import ChiMIL
from kd_mil.models.aggregators.clam import CLAM
from kd_mil.models.aggregators.dsmil import DSMIL
from kd_mil.models.aggregators.dtfd import DTFD
from kd_mil.models.aggregators.loss_abmil import LossABMIL
from tests.support.tiny import TinyData, fit, no_mining, tiny_abmil, tiny_head, tiny_parts, tiny_splits

PUBLISHED = {
    "clam": partial(CLAM, hidden=(8,), attention_dim=5, clustered=2),
    "clam-mb": partial(CLAM, hidden=(8,), attention_dim=5, branches="multi"),
    "loss abmil": partial(LossABMIL, hidden=(8,)),
    "acmil": partial(ACMIL, hidden=(8,), attention_dim=5, masked_top=2),
    "dtfd": partial(DTFD, hidden=(8,), attention_dim=5, pseudo_bags=2),
    "chi-mil": partial(ChiMIL, width=8, top=2),
}


def make(method=MIL, classes=3, **settings):
    torch.manual_seed(0)
    return method(**tiny_parts(norm=False) | {"num_classes": classes} | settings)


@pytest.mark.parametrize(
    ("aggregator", "by_class"), [(partial(DSMIL), True), (PUBLISHED["clam-mb"], True), (tiny_abmil(), False)]
)
def test_attention_of_each_class_is_scaled_by_its_own_range(aggregator, by_class):
    model = make(aggregator=aggregator)
    splits = tiny_splits(classes=3)
    fit(model, TinyData(splits), epochs=2)
    bags = splits.bags.batch(splits.test)
    with torch.no_grad():
        said = model.eval().predict_bags(bags)["model"]
        output = model.aggregator(*model.encode(bags.instances), bags.sizes)
    torch.testing.assert_close(said.bag_probs.sum(1), torch.ones(len(bags.sizes), dtype=torch.float64))
    assert ((said.instance_probs >= 0) & (said.instance_probs <= 1)).all()
    assert (said.class_probs is not None) == by_class
    if by_class:
        low, high = model.memory.low[0], model.memory.high[0]
        assert low.shape == (2,)
        assert not torch.equal(low[0], low[1])
        expected = ((output.class_attention_logits[:, 1:] - low) / (high - low)).clamp(0, 1)
        torch.testing.assert_close(said.class_probs[:, 1:], expected)
        torch.testing.assert_close(said.instance_probs, expected.max(1).values)


def test_classes_of_instances_are_scored_and_written():
    splits = tiny_splits(classes=3, bags=48)
    labels = splits.bags.instance_labels * splits.bags.labels[splits.bags.bag_of_instance]
    object.__setattr__(splits.bags, "instance_labels", labels)
    model = make(aggregator=partial(DSMIL))
    metrics = fit(model, TinyData(splits), epochs=1).callback_metrics
    assert 0 <= metrics["val/model/instance_class_auroc"] <= 1
    columns = instance_frame(model.tables["val"], splits.bags).columns
    assert {"model_prob", "model_prob_class0", "model_prob_class2"} <= set(columns)


@pytest.mark.parametrize("factory", PUBLISHED.values(), ids=PUBLISHED.keys())
def test_what_an_aggregator_adds_to_the_loss_trains_it_alone_and_as_a_teacher(factory):
    """One step on four bags: gradients are those of the bag loss plus the aggregator's own, in both methods."""
    splits = tiny_splits(bags=4)
    bags = splits.bags.batch(torch.arange(4))
    weno = make(WENO, 2, aggregator=factory, student_head=tiny_head(), hpm=no_mining())
    weno.memory.allocate(len(splits.bags), len(splits.bags.instances))
    torch.manual_seed(1)
    loss = weno.teacher_loss(bags)
    torch.manual_seed(1)
    output = weno.aggregator(weno.encoder(bags.instances), bags.sizes)
    bag_part = torch.nn.functional.cross_entropy(output.bag_logits, bags.labels)
    own = output.auxiliary_loss(bags.labels)
    assert own > 0
    torch.testing.assert_close(loss, bag_part + own)
    losses = []
    mil = make(MIL, 2, aggregator=factory)
    assert all(torch.equal(one, other) for one, other in zip(mil.parameters(), weno.parameters(), strict=False))
    mil.optimizer_list = lambda: []
    mil.step_optimizers = lambda loss, *optimizers: losses.append(loss)
    mil.log_loss = lambda *arguments, **more: None
    torch.manual_seed(1)
    mil.training_step(bags, 0)
    torch.testing.assert_close(losses[0], bag_part + own)


@pytest.mark.parametrize("factory", PUBLISHED.values(), ids=PUBLISHED.keys())
def test_rivals_learn_bags_from_their_labels(factory):
    model = make(MIL, 2, aggregator=factory, optimizer=partial(torch.optim.AdamW, lr=0.01))
    metrics = fit(model, TinyData(tiny_splits(bags=80)), epochs=12).callback_metrics
    assert metrics["val/model/bag_auroc"] > 0.8
    assert metrics["val/model/instance_auroc"] > 0.65
