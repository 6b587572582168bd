"""CLAM against its authors' steps written out bag by bag."""

import pytest
import torch
import torch.nn.functional as F

from kd_mil.core.errors import UserError
from kd_mil.models.aggregators.clam import CLAM


def plain_clam(model, bag, label, k, multi, subtyping):
    """forward() and inst_eval() of mahmoodlab/CLAM: transposed attention, topk, one classifier after the other."""
    h = model.hidden(bag)
    net = model.attention
    a = net.score(torch.tanh(net.tanh_branch(h)) * torch.sigmoid(net.sigmoid_branch(h))).T.softmax(1)
    pooled = a @ h
    if multi:
        logits = torch.stack([pooled[c] @ w + b for c, (w, b) in enumerate(zip(*model.classifier.parameters()))])  # noqa: B905
    else:
        logits = model.classifier(pooled)[0]
    total = 0.0
    for number, classifier in enumerate(model.instance_classifiers):
        row = a[number] if multi else a[0]
        best, worst = row.topk(k).indices, (-row).topk(k).indices
        if number == label:
            targets = torch.tensor([1] * k + [0] * k)
            total = total + F.cross_entropy(classifier(torch.cat([h[best], h[worst]])), targets)
        elif subtyping:
            total = total + F.cross_entropy(classifier(h[best]), torch.zeros(k, dtype=torch.long))
    return logits, total / (len(model.instance_classifiers) if subtyping else 1)


@pytest.mark.parametrize("branches", ["single", "multi"])
@pytest.mark.parametrize("subtyping", [False, True])
@pytest.mark.parametrize("classes", [2, 3])
def test_equals_the_plain_steps(branches, subtyping, classes):
    torch.manual_seed(0)
    settings = {"branches": branches, "subtyping": subtyping, "instance_weight": 0.5}
    model = CLAM(6, classes, hidden=(8,), attention_dim=5, dropout=0.0, clustered=3, **settings)
    features, sizes, labels = torch.randn(40, 6), torch.tensor([6, 25, 9]), torch.tensor([1, 0, classes - 1])
    output = model(features, sizes)
    bags = zip(features.split(sizes.tolist()), labels.tolist(), strict=True)
    plain = [plain_clam(model, bag, label, 3, branches == "multi", subtyping) for bag, label in bags]
    expected = 0.5 * torch.stack([loss for _, loss in plain]).mean()
    torch.testing.assert_close(output.bag_logits, torch.stack([logits for logits, _ in plain]))
    torch.testing.assert_close(output.auxiliary_loss(labels), expected)
    weights = [*model.hidden.parameters(), *model.instance_classifiers.parameters()]
    ours, theirs = (
        torch.autograd.grad(loss, weights, allow_unused=True) for loss in (output.auxiliary_loss(labels), expected)
    )
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(torch.zeros(()) if one is None else one, torch.zeros(()) if other is None else other)


def test_small_bags_never_teach_both_answers_for_one_instance():
    """Of 5 instances 2 are examples of either kind; a bag of one has no examples."""
    torch.manual_seed(0)
    model = CLAM(6, hidden=(8,), attention_dim=5, dropout=0.0, clustered=8)
    lone = model(torch.randn(1, 6), torch.tensor([1]))
    assert lone.auxiliary_loss(torch.tensor([1])) == 0
    bag = torch.randn(5, 6)
    output = model(bag, torch.tensor([5]))
    order = output.attention.argsort(descending=True)
    logits = model.instance_classifiers[1](model.hidden(bag))[order[[0, 1, 3, 4]]]
    expected = 3 / 7 * F.cross_entropy(logits, torch.tensor([1, 1, 0, 0]))
    torch.testing.assert_close(output.auxiliary_loss(torch.tensor([1])), expected)


def test_size_of_the_released_network():
    """1024 features, SB: 1024*512+512 hidden, 2*(512*256+256)+257 attention, 1026 bag, 2*1026 instance classifiers."""
    count = sum(p.numel() for p in CLAM(1024).parameters())
    assert count == 1024 * 512 + 512 + 2 * (512 * 256 + 256) + 257 + 1026 + 2 * 1026


@pytest.mark.parametrize("setting", [{"clustered": 0}, {"instance_weight": -1}])
def test_mistakes_are_named(setting):
    with pytest.raises(UserError, match=f"aggregator.{next(iter(setting))}"):
        CLAM(6, **setting)
