"""What every aggregator promises: bags in a batch do not matter to each other, and any size of bag works."""

from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

from kd_mil.models.aggregators import abmil
from kd_mil.models.aggregators.abmil import ABMIL
from kd_mil.models.aggregators.acmil import ACMIL
from kd_mil.models.aggregators.dsmil import DSMIL
from kd_mil.models.aggregators.pooling import Mean
from kd_mil.models.aggregators.transmil import TransMIL
from tests.support.aggregators import AGGREGATORS, UNORDERED, WIDTH, evaluated

CONF = Path(__file__).resolve().parents[3] / "conf"
BATCHES = {"few": (1, 3, 2, 7, 1, 3), "many": (40, 1, 25, 60)}


def make(factory, classes=2, seed=0):
    torch.manual_seed(seed)
    return factory(in_features=WIDTH, num_classes=classes)


def bags_of(*sizes, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(sum(sizes), WIDTH, generator=generator), torch.tensor(sizes)


def loss_of(output, labels):
    """Exercises both streams and what the aggregator adds to the loss, summed over the bags."""
    loss = F.cross_entropy(output.bag_logits, labels, reduction="sum")
    loss = loss if output.instance_logits is None else loss + output.instance_logits.square().sum()
    return loss if output.auxiliary_loss is None else loss + len(labels) * output.auxiliary_loss(labels)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("sizes", BATCHES.values(), ids=BATCHES.keys())
@pytest.mark.parametrize("factory", AGGREGATORS.values(), ids=AGGREGATORS.keys())
def test_packed_equals_loop_in_values_and_gradients(factory, sizes, classes):
    assert_packed_equals_loop(factory, sizes, classes)


def assert_packed_equals_loop(factory, sizes, classes):
    """The output and every gradient of a packed batch are those of its bags one by one."""
    features, sizes = bags_of(*sizes)
    labels = torch.arange(len(sizes)) % classes
    packed, looped = make(factory, classes), make(factory, classes)
    output = packed(features, sizes)
    bags = [looped(bag, torch.tensor([len(bag)])) for bag in features.split(sizes.tolist())]
    for name, of_bags in zip(output._fields, zip(*bags, strict=True), strict=True):
        value = getattr(output, name)
        if value is None:
            assert of_bags == (None,) * len(sizes)
        elif callable(value):
            each = [loss(label) for loss, label in zip(of_bags, labels.split(1), strict=True)]
            torch.testing.assert_close(value(labels), torch.stack(each).mean(), rtol=1e-4, atol=1e-5)
        else:
            torch.testing.assert_close(
                value, torch.cat(of_bags), rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
            )
    loss_of(output, labels).backward()
    for bag, label in zip(bags, labels.split(1), strict=True):
        loss_of(bag, label).backward()
    for (name, one), other in zip(packed.named_parameters(), looped.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None), name
        if one.grad is None:
            continue
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


SHRUNK = {"hidden": [8], "attention_dim": 5, "width": 16, "heads": 4, "landmarks": 9, "dropout": 0.0, "mask_share": 0.0}
"""Sizes that take no time, and no randomness; each configuration has some of them."""
CONFIGURED = sorted({path.stem for path in (CONF / "aggregator").glob("*.yaml")} - {"custom"})
"""What users name with `aggregator=`; `custom` is a class of their own."""


def configured(name):
    """The factory of a configuration, small, and in evaluation where its training is random by design."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        node = OmegaConf.to_container(compose(f"aggregator/{name}").aggregator)
    factory = instantiate(node | {key: value for key, value in SHRUNK.items() if key in node}, _convert_="all")
    return evaluated(factory) if name == "dtfd" else factory


@pytest.mark.parametrize("sizes", BATCHES.values(), ids=BATCHES.keys())
@pytest.mark.parametrize("name", CONFIGURED)
def test_packed_equals_loop_for_every_configuration(name, sizes):
    if name == "torchmil":
        pytest.importorskip("torchmil")
    assert_packed_equals_loop(configured(name), sizes, classes=2)


@pytest.mark.parametrize("factory", UNORDERED.values(), ids=UNORDERED.keys())
def test_order_of_instances_does_not_matter(factory):
    features, sizes = bags_of(5, 1, 30)
    generator = torch.Generator().manual_seed(2)
    starts = (sizes.cumsum(0) - sizes).tolist()
    order = torch.cat(
        [start + torch.randperm(n, generator=generator) for start, n in zip(starts, sizes.tolist(), strict=True)]
    )
    model = make(factory)
    output, permuted = model(features, sizes), model(features[order], sizes)
    torch.testing.assert_close(permuted.bag_logits, output.bag_logits)
    torch.testing.assert_close(permuted.embedding, output.embedding)
    torch.testing.assert_close(permuted.attention, output.attention[order])
    torch.testing.assert_close(permuted.attention_logits, output.attention_logits[order])


@pytest.mark.parametrize("factory", AGGREGATORS.values(), ids=AGGREGATORS.keys())
def test_shapes_and_bag_of_one(factory):
    features, sizes = bags_of(1, 4)
    output = make(factory, classes=3)(features, sizes)
    assert output.bag_logits.shape == (2, 3)
    assert output.attention_logits.shape == output.attention.shape == (5,)
    assert output.embedding.shape[0] == 2
    for by_class in (output.instance_logits, output.class_attention_logits):
        assert by_class is None or by_class.shape == (5, 3)
    assert output.auxiliary_loss is None or output.auxiliary_loss(torch.tensor([2, 0])).shape == ()
    assert output.attention[0] == 1
    assert output.attention[1:].sum().item() == pytest.approx(1)


@pytest.mark.parametrize("factory", AGGREGATORS.values(), ids=AGGREGATORS.keys())
def test_bag_of_fifty_thousand(factory):
    features, sizes = bags_of(50_000)
    model = make(factory)
    output = model(features, sizes)
    loss_of(output, torch.ones(1, dtype=torch.long)).backward()
    assert output.bag_logits.isfinite().all()
    assert output.attention.sum().item() == pytest.approx(1, abs=1e-5)
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("factory", AGGREGATORS.values(), ids=AGGREGATORS.keys())
def test_bfloat16_autocast_keeps_the_softmax(factory):
    features, sizes = bags_of(40, 1, 300)
    model = make(factory).eval()
    exact = model(features, sizes)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(features, sizes)
    assert output.attention.dtype == output.attention_logits.dtype == torch.float32
    totals = torch.stack([bag.sum() for bag in output.attention.split(sizes.tolist())])
    torch.testing.assert_close(totals, torch.ones(3))
    torch.testing.assert_close(output.bag_logits.float(), exact.bag_logits, rtol=0, atol=0.05)


@pytest.mark.parametrize("name", ["attention_logits", "instance_logits"])
@pytest.mark.parametrize("factory", AGGREGATORS.values(), ids=AGGREGATORS.keys())
def test_point_wise_scores_equal_those_in_the_bag(factory, name):
    """What may be recomputed on instances outside their bags must not depend on the bag."""
    model = make(factory)
    if not hasattr(model, name):
        assert name == "instance_logits" or isinstance(model, Mean | DSMIL | TransMIL | ACMIL)
        return
    features, sizes = bags_of(5, 1, 30)
    shuffled = torch.randperm(36, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        getattr(model, name)(features[shuffled]), getattr(model(features, sizes), name)[shuffled]
    )


@pytest.mark.parametrize("hidden", [(), (8,)])
def test_abmil_of_parts_equals_abmil_of_the_whole(hidden, monkeypatch):
    features, sizes = bags_of(5, 1, 30)
    gradients = []
    for part in (10_000, 4):
        monkeypatch.setattr(abmil, "PART", part)
        model = make(partial(ABMIL, hidden=hidden))
        model(features, sizes).bag_logits.square().sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "aggregator").glob("*.yaml")))
def test_configuration_builds(name):
    if name == "custom":
        pytest.skip("the class is the user's")
    if name == "torchmil":
        pytest.importorskip("torchmil")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        factory = instantiate(compose(f"aggregator/{name}").aggregator, _convert_="all")
    features, sizes = bags_of(3, 2)
    assert factory(in_features=WIDTH, num_classes=2)(features, sizes).bag_logits.shape == (2, 2)


@pytest.mark.parametrize(("name", "parameters"), [("abmil_released", 3_347_459), ("dsmil_released", 4_925_444)])
def test_released_heads_have_their_published_size(name, parameters):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        factory = instantiate(compose(f"aggregator/{name}").aggregator, _convert_="all")
    model = factory(in_features=1728, num_classes=2)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
