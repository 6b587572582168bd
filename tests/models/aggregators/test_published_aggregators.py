"""Loss-ABMIL, ACMIL, ChiMIL and DTFD-MIL against their authors' steps written out bag by bag."""

import math
from itertools import combinations

import pytest
import torch
import torch.nn.functional as F

from kd_mil.core.errors import UserError
from kd_mil.models.aggregators.acmil import ACMIL, MASKED
from kd_mil.models.aggregators.chi_mil import ChiMIL
from kd_mil.models.aggregators.dtfd import DTFD, deal
from kd_mil.models.aggregators.loss_abmil import LossABMIL

SIZES, LABELS = torch.tensor([6, 25, 9]), torch.tensor([1, 0, 2])


@pytest.fixture
def features():
    torch.manual_seed(0)
    return torch.randn(40, 6)


def bags_of(features):
    return zip(features.split(SIZES.tolist()), LABELS.tolist(), strict=True)


def gated(net, h):
    return net.score(torch.tanh(net.tanh_branch(h)) * torch.sigmoid(net.sigmoid_branch(h)))


def test_loss_abmil_equals_the_released_layer(features):
    """exp(logits - max) summed over classes, normalised over the bag, times n, and a mean; weight 2 on instances."""
    model = LossABMIL(6, 3, hidden=(8,))
    output = model(features, SIZES)
    losses = []
    for number, (bag, label) in enumerate(bags_of(features)):
        h = model.hidden(bag)
        out_c = model.classifier(h)
        out = (out_c - out_c.max()).exp().sum(1, keepdim=True)
        alpha = out / out.sum(0)
        context = (h * len(bag) * alpha).mean(0)
        torch.testing.assert_close(output.bag_logits[number], model.classifier(context))
        each = F.cross_entropy(out_c, torch.full((len(bag),), label), reduction="none")
        losses.append(2.0 * (alpha.squeeze(1) * each).mean())
    torch.testing.assert_close(output.auxiliary_loss(LABELS), torch.stack(losses).mean())


def test_acmil_equals_the_released_forward(features):
    model = ACMIL(6, 3, hidden=(8,), attention_dim=5, branches=3).eval()
    output = model(features, SIZES)
    losses = []
    for number, (bag, label) in enumerate(bags_of(features)):
        h = model.hidden(bag)
        a = gated(model.attention, h).T.softmax(1)
        pooled = a @ h
        subs = torch.stack([head(row) for head, row in zip(model.branch_classifiers, pooled, strict=True)])
        torch.testing.assert_close(output.bag_logits[number], model.classifier(a.mean(0) @ h))
        alike = [F.cosine_similarity(a[i], a[j], dim=0) for i, j in combinations(range(3), 2)]
        losses.append(F.cross_entropy(subs, torch.full((3,), label)) + torch.stack(alike).mean())
        torch.testing.assert_close(output.attention.split(SIZES.tolist())[number], a.mean(0))
    torch.testing.assert_close(output.auxiliary_loss(LABELS), torch.stack(losses).mean())


def test_acmil_hides_a_random_part_of_what_a_branch_attends_to_most():
    model = ACMIL(6, hidden=(), attention_dim=5, masked_top=10, mask_share=0.6)
    logits, sizes = torch.arange(35.0).flip(0), torch.tensor([30, 5])
    counts = torch.zeros(35)
    for _ in range(200):
        hidden = model.hide(logits, sizes) == MASKED
        assert hidden[:30].sum() == 6
        assert hidden[30:].sum() == 3
        counts += hidden
    assert (counts[10:30] == 0).all()
    assert (counts[:10] > 80).all()
    assert (counts[:10] < 160).all()
    torch.testing.assert_close(model.eval().hide(logits, sizes), logits)


def test_acmil_attention_is_comparable_between_bags():
    """Instances of uniform attention have logit 0 however many they are; no attention underflows to -inf."""
    model = ACMIL(6, hidden=(), attention_dim=5).eval()
    logits = model(torch.ones(50, 6), torch.tensor([7, 43])).attention_logits
    torch.testing.assert_close(logits, torch.zeros(50), atol=1e-5, rtol=0)
    model.attention.score.weight.data *= 1e4
    assert model(torch.randn(50, 6), torch.tensor([7, 43])).attention_logits.isfinite().all()


def test_chi_mil_equals_the_plain_steps(features):
    model = ChiMIL(6, 3, width=8, top=4, instance_weight=0.5, center_weight=2.0)
    output = model(features, SIZES)
    losses = []
    for number, (bag, label) in enumerate(bags_of(features)):
        embedded = model.embed(bag)
        logits = model.instance_classifier(embedded)
        best = (logits[:, 1:].max(1).values - logits[:, 0]).topk(4).indices
        z = model.embed_bag(F.relu(embedded[best].mean(0)))
        torch.testing.assert_close(output.bag_logits[number], model.classifier(z))
        instance = F.cross_entropy(logits[best], torch.full((4,), label))
        distance = torch.dist(z / z.norm(), model.centers[label]) ** 2
        losses.append(0.5 * instance + 2.0 * distance)
    torch.testing.assert_close(output.auxiliary_loss(LABELS), torch.stack(losses).mean())


@pytest.mark.parametrize("distil", ["afs", "maxs", "maxmins"])
def test_dtfd_equals_the_released_steps(features, distil):
    """Pseudo-bags as arrays of positions, the class activation map, both tiers."""
    model = DTFD(6, 2, hidden=(8,), attention_dim=5, pseudo_bags=3, distil=distil, instances_per_bag=2).eval()
    labels = LABELS.clamp_max(1)
    output = model(features, SIZES)
    losses = []
    for number, (bag, label) in enumerate(zip(features.split(SIZES.tolist()), labels.tolist(), strict=True)):
        h = model.hidden(bag)
        distilled, subs = [], []
        for group in [torch.arange(start, len(bag), 3) for start in range(3)]:
            mid = h[group]
            weighted = mid * gated(model.first_attention, mid).softmax(0)
            subs.append(model.first_classifier(weighted.sum(0)))
            cam = torch.einsum("gf,cf->cg", weighted, model.first_classifier.weight).T.softmax(1)[:, -1]
            order = cam.sort(descending=True).indices
            picked = {"afs": None, "maxs": order[:2], "maxmins": torch.cat([order[:2], order[-2:]])}[distil]
            distilled.append(weighted.sum(0, keepdim=True) if picked is None else mid[picked])
        distilled = torch.cat(distilled)
        pooled = (distilled * gated(model.second_attention, distilled).softmax(0)).sum(0)
        torch.testing.assert_close(output.bag_logits[number], model.classifier(pooled))
        losses.append(F.cross_entropy(torch.stack(subs), torch.full((3,), label)))
    torch.testing.assert_close(output.auxiliary_loss(labels), torch.stack(losses).mean())


@pytest.mark.parametrize("shuffle", [False, True])
def test_dealing_uses_every_instance_once_in_equal_pseudo_bags_of_its_own_bag(shuffle):
    sizes = torch.tensor([10, 2, 1])
    order, pseudo_sizes, count = deal(sizes, 13, 4, shuffle)
    assert sorted(order.tolist()) == list(range(13))
    assert count.tolist() == [4, 2, 1]
    assert sorted(pseudo_sizes[:4].tolist()) == [2, 2, 3, 3]
    assert pseudo_sizes[4:].tolist() == [1, 1, 1]
    owner = torch.arange(3).repeat_interleave(sizes)[order]
    torch.testing.assert_close(owner, torch.arange(3).repeat_interleave(count).repeat_interleave(pseudo_sizes))


def test_dtfd_deals_anew_at_every_step_of_training_but_never_in_evaluation(features):
    model = DTFD(6, 2, hidden=(8,))
    assert not torch.equal(model(features, SIZES).bag_logits, model(features, SIZES).bag_logits)
    model.eval()
    assert torch.equal(model(features, SIZES).bag_logits, model(features, SIZES).bag_logits)


@pytest.mark.parametrize(
    ("factory", "setting"),
    [
        (LossABMIL, {"instance_weight": -1}),
        (ACMIL, {"branches": 0}),
        (ACMIL, {"mask_share": 1.5}),
        (ChiMIL, {"top": 0}),
        (DTFD, {"pseudo_bags": 0}),
    ],
)
def test_mistakes_are_named(factory, setting):
    with pytest.raises(UserError, match=next(iter(setting))):
        factory(6, **setting)


def test_log_of_attention_is_exact_in_a_small_case():
    """Two branches, two instances: attention (1/2, 1/2) and (3/4, 1/4); the logits are log(2 * mean)."""
    from kd_mil.models.aggregators.acmil import mean_attention_logits

    branches = torch.tensor([[0.0, math.log(3.0)], [0.0, 0.0]])
    expected = [math.log(2 * 0.625), math.log(2 * 0.375)]
    assert mean_attention_logits(branches, torch.tensor([2])).tolist() == pytest.approx(expected)
