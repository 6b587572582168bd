"""INS against an independent plain loop, and the promises of weak supervision and of resuming."""

import copy
import math
from dataclasses import replace
from functools import partial

import pytest
import torch

from kd_mil.core.errors import UserError
from kd_mil.data.batches import BagBatch
from kd_mil.data.samplers import InTurn
from kd_mil.methods.ins.ins import INS
from tests.support.methods import checkpointing
from tests.support.tiny import TinyData, fit, tiny_head, tiny_parts, tiny_splits

QUEUE, MOMENTUM, RATE, WARM_UP = 24, 0.9, 0.1, 2


def make(seed=0, **settings):
    torch.manual_seed(seed)
    small = {"student_head": tiny_head(), "projection": 4, "queue": QUEUE, "momentum": MOMENTUM, "warm_up": WARM_UP}
    quick = {"view_dropout": 0.0, "seed": seed, "optimizer": partial(torch.optim.SGD, lr=RATE, momentum=0.9)}
    return INS(**tiny_parts(norm=False) | small | quick | settings)


def length_one(vector):
    return vector / math.sqrt(float((vector**2).sum()))


def plain_ins(model, data, epochs):
    """The algorithm instance by instance, without any code of the package but the networks' weights."""
    encoder, head, projector = model.parts()
    optimizers = [torch.optim.SGD(part.parameters(), lr=RATE, momentum=0.9) for part in (encoder, head, projector)]
    twin = copy.deepcopy(model.twin)
    bags = data.splits.bags
    prototypes, queue, table = [torch.zeros(4), torch.zeros(4)], [], {}

    def step(loss, chosen):
        for index in chosen:
            optimizers[index].zero_grad()
        loss.backward()
        for index in chosen:
            optimizers[index].step()

    def margin_of(features):
        negative, positive = head(features).unbind(-1)
        return positive - negative

    for epoch in range(epochs):
        keep = 0.95 - 0.15 * epoch / epochs
        for batch in InTurn([data.bag_loader(), data.instance_loader()], epoch=lambda epoch=epoch: epoch):
            inputs = batch.instances.double()
            if isinstance(batch, BagBatch):
                smooth = torch.log(torch.exp(margin_of(encoder(inputs))).mean())
                step(0.5 * torch.nn.functional.softplus(smooth * (1 - 2 * int(batch.labels[0]))), (0, 1))
                continue
            with torch.no_grad():
                for kept, now in zip(twin.parameters(), [*encoder.parameters(), *projector.parameters()], strict=True):
                    kept.copy_(MOMENTUM * kept + (1 - MOMENTUM) * now)
                keys = [projected / projected.norm() for projected in twin(inputs)]
            features = encoder(inputs)
            queries = [projected / projected.norm() for projected in projector(features)]
            margins, positive_bag = margin_of(features), batch.labels > 0
            called = [bool(positive_bag[i] and margins[i] > 0) for i in range(len(inputs))]
            ids = batch.instance_ids.tolist()
            for i, index in enumerate(ids):
                table.setdefault(index, 0.5 * float(positive_bag[i]))
                query = queries[i].detach()
                nearer = query @ prototypes[1] > query @ prototypes[0]
                if epoch >= WARM_UP:
                    table[index] = keep * table[index] + (1 - keep) * bool(positive_bag[i] and nearer)
            in_order = sorted(range(len(ids)), key=lambda i: ids[i])
            for i in in_order:
                prototypes[called[i]] = 0.9 * prototypes[called[i]] + 0.1 * queries[i].detach()
            prototypes = [length_one(vector) if vector.any() else vector for vector in prototypes]
            contrast = 0.0
            others = [*zip(keys, called, strict=True), *queue]
            for i, query in enumerate(queries):
                if epoch < WARM_UP:
                    logits = torch.stack([query @ keys[i], *(query @ key for key, _ in queue)]) / 0.07
                    contrast = contrast - torch.log_softmax(logits, 0)[0]
                    continue
                rest = [(queries[j], called[j]) for j in range(len(ids)) if j != i] + others
                log_probs = torch.log_softmax(torch.stack([query @ other for other, _ in rest]) / 0.07, 0)
                alike = [log_probs[j] for j, (_, of) in enumerate(rest) if of == called[i]]
                contrast = contrast - torch.stack(alike).mean()
            q = torch.sigmoid(margins)
            y = torch.tensor([table[index] for index in ids]) if epoch >= WARM_UP else positive_bag.double()
            labels = -(y * q.log() + (1 - y) * (1 - q).log()).mean()
            step(labels + 0.5 * contrast / len(ids), (0, 1, 2))
            queue = [*queue, *((keys[i], called[i]) for i in in_order)][-QUEUE:]
    return {index: label for index, label in table.items() if bags.labels[bags.bag_of_instance[index]] > 0}


@pytest.fixture
def double_precision():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_warm_up_and_two_epochs_equal_the_plain_loop(double_precision):
    model, data = make(), TinyData(tiny_splits(), seed=4)
    oracle = copy.deepcopy(model)
    fit(model, data, epochs=4)
    labels = plain_ins(oracle, data, 4)
    for trained, expected in zip(model.parts(), oracle.parts(), strict=True):
        for a, b in zip(trained.parameters(), expected.parameters(), strict=True):
            torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-7)
    assert {index: float(model.table.positive[index]) for index in labels} == pytest.approx(labels, abs=1e-9)
    assert len({round(label, 6) for label in labels.values()}) > 1
    negative = data.bags.labels[data.bags.bag_of_instance] == 0
    assert model.table.positive[negative].eq(0).all()


def test_instance_labels_cannot_reach_the_weights():
    states = []
    for labels in ("given", "scrambled", "erased"):
        splits = tiny_splits()
        known = splits.bags.instance_labels
        changed = {"given": known, "scrambled": known[torch.randperm(len(known))], "erased": torch.full_like(known, -1)}
        model = make()
        fit(model, TinyData(splits._replace(bags=replace(splits.bags, instance_labels=changed[labels]))), epochs=3)
        states.append(model.state_dict())
    for name, value in states[0].items():
        assert value.equal(states[1][name]), name
        assert value.equal(states[2][name]), name


def test_a_resumed_run_repeats_the_whole_one(tmp_path):
    """Twin, prototypes, queue and soft labels go on where they were, with views that dropout draws."""
    whole, resumed = make(view_dropout=0.3), make(seed=0, view_dropout=0.3)
    fit(whole, TinyData(tiny_splits()), epochs=4, **checkpointing(tmp_path))
    fit(resumed, TinyData(tiny_splits()), epochs=4, start=tmp_path / "epoch1.ckpt")
    for name, value in whole.state_dict().items():
        assert value.equal(resumed.state_dict()[name]), name


def test_without_steps_on_bags_there_are_none():
    model = make(bag_weight=0.0)
    trainer = fit(model, TinyData(tiny_splits()), epochs=2)
    assert model.train_views == ("instances",)
    assert "loss/bags" not in trainer.callback_metrics


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_classes": 3}, "binary"),
        ({"projection": 0}, r"method\.projection"),
        ({"momentum": 1.2}, r"method\.momentum"),
        ({"temperature": 0}, r"method\.temperature"),
        ({"label_momentum": (0.9, 1.1)}, r"method\.label_momentum"),
        ({"view_dropout": 1.0}, r"method\.view_dropout"),
        ({"bag_weight": -1}, r"method\.bag_weight"),
    ],
)
def test_settings_outside_their_range_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        make(**settings)


def test_a_label_momentum_that_changes_needs_an_end():
    with pytest.raises(UserError, match=r"needs trainer\.max_epochs"):
        fit(make(), TinyData(tiny_splits()), epochs=-1)
    assert make(label_momentum=(0.9, 0.9)).keep_of_epoch() == 0.9
