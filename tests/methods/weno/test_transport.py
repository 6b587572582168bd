"""WENO with labels by transport against an independent plain loop, its mass, and its state."""

import copy
import math
from functools import partial

import pytest
import torch

from kd_mil.core.errors import UserError
from kd_mil.data.batches import BagBatch
from kd_mil.data.samplers import InTurn
from kd_mil.methods.weno.margins import Margins
from kd_mil.methods.weno.mining import HardPositiveMining
from kd_mil.methods.weno.transport_labels import TransportLabels
from kd_mil.models.aggregators.clam import CLAM
from kd_mil.models.aggregators.dsmil import DSMIL
from kd_mil.models.aggregators.pooling import Mean
from kd_mil.models.aggregators.transmil import TransMIL
from tests.support.methods import make_weno
from tests.support.tiny import TinyData, fit, tiny_splits

TRANSPORT = {"pseudo_labels": "transport", "average": 0.9}


def solve(z, mass):
    """b of sigmoid(z + b) with the given mean, by halving an interval."""
    low, high = -1e3, 1e3
    for _ in range(200):
        b = (low + high) / 2
        low, high = (low, b) if torch.sigmoid(z + b).mean() > mass else (b, high)
    return torch.sigmoid(z + b)


def best_bin(unlabelled, negative):
    """Share of positives by the threshold that minimises the bound, tried one by one."""
    width = sum(math.sqrt(math.log(40) / (2 * len(sample))) for sample in (unlabelled, negative))
    tried = []
    for threshold in [*unlabelled, *negative]:
        of_u = sum(score <= threshold for score in unlabelled) / len(unlabelled)
        of_n = sum(score <= threshold for score in negative) / len(negative)
        if of_n > 0:
            tried.append(((of_u + 1.01 * width) / of_n, 1 - of_u / of_n))
    return min(tried)[1]


def plain_transport(model, data, epochs, mass, decay, threshold, mining_from):
    """The algorithm bag by bag on a copy of the model's networks; returns labels of the last epoch by instance.

    A mass of None is estimated on validation bags.
    """
    parts = [model.encoder, model.aggregator, model.student_head]
    encoder, teacher, head = parts
    optimizers = [torch.optim.SGD(part.parameters(), lr=0.02, momentum=0.9) for part in parts]
    kept, steps = [copy.deepcopy(part).eval() for part in parts], 0
    splits, labels, estimate = data.splits, {}, None
    bags = splits.bags

    def update(loss, chosen):
        nonlocal steps
        for index in chosen:
            optimizers[index].zero_grad()
        loss.backward()
        for index in chosen:
            optimizers[index].step()
        steps += 1
        decay_now = min(decay, 1 - 1 / steps)
        with torch.no_grad():
            for average, part in zip(kept, parts, strict=True):
                for a, p in zip(average.parameters(), part.parameters(), strict=True):
                    a.copy_(decay_now * a + (1 - decay_now) * p)

    def says(bag):
        """Margins of teacher and student on each instance of a bag alone."""
        found = []
        for x in bags.instances[bags.instances_of(torch.tensor([bag]))]:
            features = kept[0](x[None])
            one, logits = kept[1](features, torch.tensor([1])).bag_logits[0], kept[2](features)[0]
            found.append((float(one[1] - one[0]), float(logits[1] - logits[0])))
        return found

    def estimated(t, s):
        """The running estimate, bounded."""
        nonlocal estimate
        scores = {0: [], 1: []}
        for bag in splits.val.tolist():
            for of_t, of_s in says(bag):
                standard = float((of_t - t.mean()) / t.std() + (of_s - s.mean()) / s.std()) / 2
                scores[int(bags.labels[bag])].append(standard)
        found = best_bin(scores[1], scores[0])
        estimate = found if estimate is None else (estimate + found) / 2
        return min(max(estimate, 1 / float(bags.sizes[splits.train].double().mean())), 0.5)

    def new_labels():
        positive = [bag for bag in splits.train.tolist() if bags.labels[bag] == 1]
        ids = [int(i) for bag in positive for i in bags.instances_of(torch.tensor([bag]))]
        with torch.no_grad():
            t, s = torch.tensor([pair for bag in positive for pair in says(bag)]).T
            share = estimated(t, s) if mass is None else mass
        c = ((t - t.mean()) / t.std() + (s - s.mean()) / s.std()) / 2
        q = solve(3 * (c - c.mean()) / c.std(), share)
        start = 0
        for bag in positive:
            end = start + int(bags.sizes[bag])
            q[start + c[start:end].argmax()] = 1
            start = end
        return dict(zip(ids, q.tolist(), strict=True))

    for epoch in range(epochs):
        fresh = True
        for batch in InTurn([data.bag_loader(), data.instance_loader()], epoch=lambda epoch=epoch: epoch):
            features = encoder(batch.instances)
            if isinstance(batch, BagBatch):
                label = int(batch.labels[0])
                if epoch >= mining_from and label == 1:
                    with torch.no_grad():
                        keep = torch.softmax(head(features), 1)[:, 1] <= threshold
                    features = features[keep] if keep.any() else features
                logits = teacher(features, torch.tensor([len(features)])).bag_logits[0]
                update(-torch.log_softmax(logits, 0)[label], (0, 1))
                continue
            if fresh:
                fresh = False
                if epoch >= 1:
                    labels = new_labels()
            y = torch.tensor(
                [
                    float(label) if epoch < 1 or label == 0 else labels[index]
                    for index, label in zip(batch.instance_ids.tolist(), batch.labels.tolist(), strict=True)
                ]
            )
            q = torch.softmax(head(features), 1)
            update(-((1 - y) * q[:, 0].log() + y * q[:, 1].log()).mean() / 2, (0, 2))
    return labels, kept


@pytest.fixture
def double_precision():
    """A wrong formula is the only source of difference."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("mass", [0.6, None], ids=["fixed", "mixture"])
def test_three_epochs_equal_the_plain_loop(mass, double_precision):
    hpm = HardPositiveMining(mode="threshold", threshold=0.55, start_share=0.5, fallback="all")
    model = make_weno(norm=False, hpm=hpm, transport=TransportLabels(mass=mass or "mixture"), **TRANSPORT)
    oracle, data = copy.deepcopy(model), TinyData(tiny_splits(), seed=4)

    fit(model, data, epochs=3)
    labels, kept = plain_transport(oracle, data, 3, mass=mass, decay=0.9, threshold=0.55, mining_from=2)

    made = {int(i): float(y) for ids, values in model.notes.pseudo_labels for i, y in zip(ids, values, strict=True)}
    for index, label in labels.items():
        assert made[index] == pytest.approx(label, abs=1e-6)
    assert 0 < len(labels) < len(made)
    assert all(value == 0 for index, value in made.items() if index not in labels)
    for trained, expected in zip(model.parts(), oracle.parts(), strict=True):
        for a, b in zip(trained.parameters(), expected.parameters(), strict=True):
            torch.testing.assert_close(a, b, atol=1e-7, rtol=1e-5)
    for trained, expected in zip(model.average.parts, kept, strict=True):
        for a, b in zip(trained.parameters(), expected.parameters(), strict=True):
            torch.testing.assert_close(a, b, atol=1e-7, rtol=1e-5)
    assert sum(len(ids) for ids in model.notes.dropped) > 0


def test_the_average_is_what_evaluates():
    model = make_weno(norm=False, **TRANSPORT)
    data = TinyData(tiny_splits())
    fit(model, data, epochs=2)
    batch = data.bags.batch(data.splits.test)
    alone = copy.deepcopy(model)
    alone.average = None
    for part, averaged in zip(alone.parts(), model.average.parts, strict=True):
        part.load_state_dict(averaged.state_dict())
    with torch.no_grad():
        expected, found = alone.eval().predict_bags(batch), model.eval().predict_bags(batch)
    for role in ("teacher", "student"):
        torch.testing.assert_close(found[role].bag_probs, expected[role].bag_probs)
        torch.testing.assert_close(found[role].instance_probs, expected[role].instance_probs)


@pytest.mark.parametrize("kind", ["bag_of_one", "transport"])
@pytest.mark.parametrize(
    "aggregator",
    [DSMIL, partial(TransMIL, width=16, heads=2, landmarks=4), partial(CLAM, hidden=(8,)), Mean],
    ids=["dsmil", "transmil", "clam", "mean"],
)
def test_every_aggregator_can_give_its_word(aggregator, kind):
    model = make_weno(norm=False, aggregator=aggregator, pseudo_labels=kind)
    data = TinyData(tiny_splits())
    fit(model, data, epochs=2)
    ids, labels = (torch.cat(column) for column in zip(*model.notes.pseudo_labels, strict=True))
    of_bag = data.bags.labels[data.bags.bag_of_instance[ids]]
    assert labels[of_bag == 0].eq(0).all()
    assert labels[of_bag == 1].unique().numel() > 5


def test_labels_of_bags_of_one_are_the_teachers_probabilities():
    model = make_weno(norm=False, pseudo_labels="bag_of_one", optimizer=partial(torch.optim.SGD, lr=0.0))
    data = TinyData(tiny_splits())
    fit(model, data, epochs=1)
    for ids, labels in model.notes.pseudo_labels:
        with torch.no_grad():
            features = model.encoder(data.bags.instances[ids])
            logits = model.aggregator(features, torch.ones(len(ids), dtype=torch.long)).bag_logits
        expected = logits.softmax(1)[:, 1] * data.bags.labels[data.bags.bag_of_instance[ids]]
        torch.testing.assert_close(labels, expected)


def margins(teacher, student=None, owners=None):
    teacher = torch.tensor(teacher)
    student = teacher if student is None else torch.tensor(student)
    return Margins(teacher, student, torch.zeros(len(teacher), dtype=torch.long) if owners is None else owners)


def test_the_mass_is_remembered_and_bounded():
    """Estimates .25 and .75 with momentum .5 give .25, then .5; bounds are 1 / mean size and the largest mass."""
    transport = TransportLabels(largest_mass=0.45)
    reference = margins([0.0, 1.0])
    labels = torch.tensor([1] * 4 + [0] * 4)
    quarter, most = margins([0.0, 0, 0, 1, 0, 0, 0, 0]), margins([0.0, 1, 1, 1, 0, 0, 0, 0])
    assert transport.estimated_mass(reference, quarter, labels, 10.0) == pytest.approx(0.25)
    assert transport.estimated_mass(reference, most, labels, 10.0) == pytest.approx(0.45)
    assert float(transport.mass.estimate) == pytest.approx(0.5)
    none = margins([0.0] * 8)
    assert TransportLabels().estimated_mass(reference, none, labels, 10.0) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("source", "expected"), [("teacher", [-1, 0, 1]), ("student", [1, -1, 0]), ("both", [0, -0.5, 0.5])]
)
def test_scores_by_source(source, expected):
    given = margins([0.0, 2.0, 4.0], [9.0, 3.0, 6.0])
    assert TransportLabels(source=source).scores(given, given).tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mass": 1.5}, "method.transport.mass"),
        ({"mass": math.nan}, "method.transport.mass"),
        ({"mass": "mixtur"}, "method.transport.mass=mixtur"),
        ({"source": "techer"}, "method.transport.source"),
        ({"sharpness": 0}, "method.transport.sharpness"),
        ({"warm_up": -1}, "method.transport.warm_up"),
        ({"largest_mass": 1.5}, "method.transport.largest_mass"),
    ],
)
def test_settings_outside_their_range_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        TransportLabels(**settings)


def test_a_fixed_mass_needs_an_end():
    model = make_weno(norm=False, transport=TransportLabels(mass=0.3), **TRANSPORT)
    with pytest.raises(UserError, match=r"trainer\.max_epochs"):
        fit(model, TinyData(tiny_splits()), epochs=-1)
