"""Readings of bag classifiers: each by a loop over bags or instances, and what chooses among them."""

from functools import partial

import pytest
import torch
from torch import nn

from kd_mil.callbacks.predictions import instance_frame
from kd_mil.core.errors import UserError
from kd_mil.evaluation.thresholds import instance_threshold
from kd_mil.methods.base import chosen_reading
from kd_mil.methods.base import readings as module
from kd_mil.methods.base.attention_memory import AttentionMemory
from kd_mil.methods.base.readings import BagReadings, bag_of_one_logits, choose_reading, own_reading
from kd_mil.models.aggregators.abmil import ABMIL
from kd_mil.models.aggregators.acmil import ACMIL
from kd_mil.models.aggregators.chi_mil import ChiMIL
from kd_mil.models.aggregators.clam import CLAM
from kd_mil.models.aggregators.dsmil import DSMIL
from kd_mil.models.aggregators.dtfd import DTFD
from kd_mil.models.aggregators.loss_abmil import LossABMIL
from kd_mil.models.aggregators.pooling import Max, Mean
from kd_mil.models.aggregators.transmil import TransMIL
from tests.support.methods import make_mhim, make_mil, make_weno
from tests.support.tiny import TinyData, fit, tiny_splits

WIDTH = 6
AGGREGATORS = {
    "abmil": partial(ABMIL, hidden=(8,)),
    "gated": partial(ABMIL, hidden=(8,), gated=True),
    "acmil": partial(ACMIL, hidden=(8,)),
    "chimil": partial(ChiMIL, width=8, top=3),
    "clam-sb": partial(CLAM, hidden=(8,)),
    "clam-mb": partial(CLAM, hidden=(8,), branches="multi"),
    "dsmil": DSMIL,
    "dtfd": partial(DTFD, hidden=(8,)),
    "loss-abmil": partial(LossABMIL, hidden=(8,)),
    "max": Max,
    "mean": Mean,
    "transmil": partial(TransMIL, width=16, heads=2, landmarks=4),
}
SIZES = torch.tensor([3, 1, 5])


def read(name, memory=None, classes=2):
    torch.manual_seed(0)
    aggregator: nn.Module = AGGREGATORS[name](in_features=WIDTH, num_classes=classes).eval()
    features = torch.randn(9, WIDTH)
    with torch.no_grad():
        output = aggregator(features, SIZES)
        found = BagReadings(aggregator, features, SIZES, output, output.attention_logits, memory)
        return aggregator, features, output, found, found.scores()


@pytest.mark.parametrize("name", AGGREGATORS)
@pytest.mark.parametrize("classes", [2, 3])
def test_bag_of_one_is_the_bag_prediction_of_each_instance_alone(name, classes, monkeypatch):
    monkeypatch.setattr(module, "AT_ONCE", 4)  # chunks of 4, 4 and 1
    aggregator, features, output, found, scores = read(name, classes=classes)
    with torch.no_grad():
        alone = torch.cat([aggregator(row[None], torch.tensor([1])).bag_logits for row in features]).double()
    expected = alone.softmax(1)
    torch.testing.assert_close(found.bag_of_one.probs, 1 - expected[:, 0])
    torch.testing.assert_close(scores["bag_of_one"].sigmoid(), 1 - expected[:, 0])
    bag = 1 - output.bag_logits.double().softmax(1)[:, 0].repeat_interleave(SIZES)
    torch.testing.assert_close(found.bag_of_one_x_bag.probs, (1 - expected[:, 0]) * bag)
    assert all(column.shape == (9,) and column.isfinite().all() for column in scores.values())


def test_attention_times_bag_is_that_product_within_the_range_and_keeps_the_order_beyond_it():
    memory = AttentionMemory()
    memory.low.fill_(0.03)
    memory.high.fill_(0.12)
    _, _, output, found, scores = read("abmil", memory)
    scaled = (output.attention_logits.double() - 0.03) / 0.09
    bag = output.bag_logits.double().softmax(1)[:, 1].repeat_interleave(SIZES)
    assert (scaled < 0).any()
    assert (scaled > 1).any()
    inside = (scaled >= 0) & (scaled <= 1)
    torch.testing.assert_close(scores["attention_x_bag"][inside], (scaled * bag)[inside], rtol=1e-5, atol=1e-5)
    for attention, product in zip(
        output.attention_logits.split(SIZES.tolist()), scores["attention_x_bag"].split(SIZES.tolist()), strict=True
    ):
        assert attention.argsort().tolist() == product.argsort().tolist()
    assert ((found.attention_x_bag.probs >= 0) & (found.attention_x_bag.probs <= 1)).all()
    torch.testing.assert_close(found.attention.probs.double(), scaled.clamp(0, 1), rtol=1e-5, atol=1e-5)


def test_without_attention_the_bag_alone_ranks():
    memory = AttentionMemory()
    memory.high.fill_(0.0)
    _, _, output, _, scores = read("mean", memory)
    expected = output.bag_logits.double().softmax(1)[:, 1].repeat_interleave(SIZES)
    torch.testing.assert_close(scores["attention_x_bag"], expected)


def test_own_readings_are_those_of_the_authors():
    owns = {name: own_reading(factory(in_features=WIDTH)) for name, factory in AGGREGATORS.items()}
    assert owns.pop("dsmil") == "instance_stream"
    assert owns.pop("loss-abmil") == "bag_of_one"
    assert set(owns.values()) == {"attention"}


def test_the_own_reading_of_loss_abmil_is_its_classifier_on_instances():
    """A sure negative has as high an attention as a sure positive, but not as high a score."""
    aggregator, features, output, found, _ = read("loss-abmil")
    with torch.no_grad():
        logits = aggregator.classifier(aggregator.hidden(features))
    torch.testing.assert_close(found[found.own].scores, (logits[:, 1] - logits[:, 0]).double())
    torch.testing.assert_close(output.attention_logits, logits.logsumexp(1))


def test_the_instance_stream_is_that_of_dsmil_alone():
    _, _, output, _, scores = read("dsmil")
    expected = output.instance_logits.double()
    torch.testing.assert_close(scores["instance_stream"], expected[:, 1] - expected[:, 0])
    assert "instance_stream" not in read("abmil")[4]
    with pytest.raises(UserError, match="has no instance stream"):
        read("abmil")[3].instance_stream  # noqa: B018
    for make in (make_mil, make_mhim, make_weno):
        with pytest.raises(UserError, match="ABMIL has no instance stream; use"):
            make(instance_score="instance_stream")


@pytest.mark.parametrize("make", [make_mil, make_mhim, make_weno])
def test_test_bags_are_scored_in_every_reading_and_validation_bags_in_one(make):
    splits = tiny_splits()
    model, data = make(), TinyData(splits)
    trainer = fit(model, data)
    assert not any("bag_of_one" in key for key in trainer.callback_metrics)
    trainer.test(model, datamodule=data, verbose=False)
    columns = instance_frame(model.tables["test"], splits.bags).columns
    for role in model.roles:
        names = ("instance_x_bag",) if role == "student" and make is make_weno else module.NAMES[:-1]
        assert {f"{role}_{name}" for name in names} <= set(columns)
        for name in names:
            for metric in ("auroc", "ap_within", "auroc_per_bag"):
                assert 0 <= model.exact_scores[f"test/{role}/{name}/instance_{metric}"] <= 1
        assert 0 <= model.exact_scores[f"test/{role}/instance_auroc_within"] <= 1


@pytest.mark.parametrize("name", ["attention", "bag_of_one", "attention_x_bag", "bag_of_one_x_bag"])
def test_instance_score_says_which_reading_is_the_networks_word(name):
    model, data = make_mil(instance_score=name), TinyData(tiny_splits())
    trainer = fit(model, data)
    trainer.test(model, datamodule=data, verbose=False)
    scores = model.exact_scores
    for metric in ("auroc", "ap", "auroc_within", "ap_per_bag"):
        assert scores[f"test/model/instance_{metric}"] == pytest.approx(scores[f"test/model/{name}/instance_{metric}"])


def test_a_reading_is_chosen_by_bag_labels():
    in_positive = torch.tensor([False, False, True, True])
    candidates = {
        "attention": torch.tensor([0.1, 0.9, 0.5, 0.6]),
        "bag_of_one": torch.tensor([0.1, 0.2, 0.15, 0.9]),
        "attention_x_bag": torch.tensor([0.1, 0.2, 0.8, 0.9]),  # the best, but it knows the bag
    }
    assert choose_reading(candidates, in_positive) == "bag_of_one"
    assert choose_reading(candidates, torch.ones(4, dtype=torch.bool)) is None
    assert choose_reading({"instance_x_bag": torch.rand(4)}, in_positive) is None


def test_validation_bags_choose_without_instance_labels_and_the_checkpoint_remembers():
    splits = tiny_splits()
    chosen = []
    for labels in (splits.bags.instance_labels, torch.full_like(splits.bags.instance_labels, -1)):
        bags = tiny_splits().bags
        object.__setattr__(bags, "instance_labels", labels)
        model = make_mil(instance_score="validation")
        fit(model, TinyData(splits._replace(bags=bags)))
        table = model.tables["val"]
        expected = choose_reading(table.readings("model"), table.in_positive_bag())
        assert module.NAMES[int(model.chosen_readings[0])] == expected
        chosen.append(expected)
        other = make_mil(instance_score="validation")
        other.load_state_dict(model.state_dict())
        bag = splits.bags.batch(splits.test)
        with torch.no_grad():
            said = model.eval().predict_bags(bag)["model"]
            assert torch.equal(other.eval().predict_bags(bag)["model"].instance_scores, said.instance_scores)
            assert torch.equal(said.instance_scores, said.readings()[expected])
    assert chosen[0] == chosen[1]


@pytest.mark.parametrize("make", [make_mil, make_mhim, make_weno])
def test_the_threshold_of_instances_is_that_of_the_reading_just_chosen(make, monkeypatch):
    """In the first epoch the word was attention while validation bags were read."""
    monkeypatch.setattr(
        chosen_reading, "choose_reading", lambda scores, _: "bag_of_one" if "bag_of_one" in scores else None
    )
    splits = tiny_splits()
    model = make(instance_score="validation")
    fit(model, TinyData(splits), epochs=1)
    role = model.roles[0]
    with torch.no_grad():
        scores = model.eval().predict_bags(splits.bags.batch(splits.val))[role].readings()["bag_of_one"]
    in_positive_bag = splits.bags.labels[splits.bags.bag_of_instance[splits.bags.instances_of(splits.val)]] > 0
    expected = instance_threshold(scores.sigmoid(), in_positive_bag)
    assert model.thresholds_of_instances[role] == pytest.approx(expected, rel=1e-6)
    assert model.shown_readings[role] == "bag_of_one"
    assert not [name for name in model.tables["val"].instances if "reading_probs" in name]


def test_chunks_do_not_show(monkeypatch):
    aggregator, features, *_ = read("dsmil")
    whole = bag_of_one_logits(aggregator, features)
    monkeypatch.setattr(module, "AT_ONCE", 2)
    torch.testing.assert_close(bag_of_one_logits(aggregator, features), whole)
