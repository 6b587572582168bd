"""SeLa-MIL against an independent plain loop, and the promises of weak supervision."""

import copy
from dataclasses import replace

import pytest
import torch

from kd_mil.core.errors import UserError
from kd_mil.data.samplers import InTurn
from tests.support.methods import make_sela_mil
from tests.support.tiny import TinyData, fit, tiny_splits


def plain_sela(model, data, epochs, mass, sharpness):
    """The algorithm of the paper, one label step an epoch, written without any code of the package."""
    encoder, head = model.encoder, model.student_head
    optimizers = [torch.optim.SGD(part.parameters(), lr=0.02, momentum=0.9) for part in (encoder, head)]
    bags, train = data.splits.bags, data.splits.train.tolist()
    for epoch in range(epochs):
        labels = {}
        for bag in train:
            for i in bags.instances_of(torch.tensor([bag])).tolist():
                labels[i] = float(bags.labels[bag])
        if epoch >= 1:
            positive = [i for i, label in labels.items() if label == 1]
            with torch.no_grad():
                logits = head(encoder(bags.instances[positive]))
            z = logits[:, 1] - logits[:, 0]
            share = max(mass, 0.5 + (mass - 0.5) * epoch / (epochs / 2))
            low, high = -1e3, 1e3
            for _ in range(200):
                b = (low + high) / 2
                low, high = (low, b) if torch.sigmoid(sharpness * z + b).mean() > share else (b, high)
            q = torch.sigmoid(sharpness * z + b)
            for bag in train:
                own = [n for n, i in enumerate(positive) if int(bags.bag_of_instance[i]) == bag]
                if own:
                    q[own[int(z[own].argmax())]] = 1
            labels |= dict(zip(positive, q.tolist(), strict=True))
        for batch in InTurn([data.instance_loader()], epoch=lambda epoch=epoch: epoch):
            y = torch.tensor([labels[i] for i in batch.instance_ids.tolist()])
            p = torch.softmax(head(encoder(batch.instances)), 1)
            loss = -(y * p[:, 1].log() + (1 - y) * p[:, 0].log()).mean()
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()


@pytest.fixture
def double_precision():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_three_epochs_equal_the_plain_loop(double_precision):
    model, data = make_sela_mil(mass=0.2, sharpness=2.0), TinyData(tiny_splits(), seed=4)
    oracle = copy.deepcopy(model)
    fit(model, data, epochs=3)
    plain_sela(oracle, data, 3, mass=0.2, sharpness=2.0)
    for (name, trained), expected in zip(model.named_parameters(), oracle.parameters(), strict=True):
        torch.testing.assert_close(trained, expected, atol=1e-9, rtol=1e-7, msg=lambda text, n=name: f"{n}: {text}")


@pytest.mark.parametrize("mass", [0.3, "mixture"])
def test_instance_labels_cannot_reach_the_weights(mass):
    weights = []
    for labels in ("given", "scrambled", "erased"):
        splits = tiny_splits()
        known = splits.bags.instance_labels
        changed = {"given": known, "scrambled": known[torch.randperm(len(known))], "erased": torch.full_like(known, -1)}
        model = make_sela_mil(mass=mass)
        fit(model, TinyData(splits._replace(bags=replace(splits.bags, instance_labels=changed[labels]))), epochs=3)
        weights.append(torch.cat([parameter.flatten() for parameter in model.parameters()]))
    assert weights[0].equal(weights[1])
    assert weights[0].equal(weights[2])


def test_the_whole_mass_is_the_naive_classifier():
    """With mass 1 labels stay those of the bags, up to what a sigmoid can say."""
    model, data = make_sela_mil(mass=1.0), TinyData(tiny_splits())
    fit(model, data, epochs=2)
    bags = data.bags
    train = bags.instances_of(data.splits.train)
    expected = bags.labels[bags.bag_of_instance[train]].float()
    torch.testing.assert_close(model._labels[train], expected, atol=1e-4, rtol=0)


def test_more_than_two_classes_are_refused():
    with pytest.raises(UserError, match="binary"):
        make_sela_mil(num_classes=3)
