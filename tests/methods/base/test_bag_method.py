"""What the methods on bags share."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch

from kd_mil.core.errors import UserError
from kd_mil.data import bags
from kd_mil.evaluation.thresholds import instance_threshold
from kd_mil.methods.weno.weno import WENO
from kd_mil.models.aggregators.dsmil import DSMIL
from kd_mil.models.preprocess import Preprocess
from tests.support.methods import make_d2l, make_mhim, make_mil, make_rnn_mil, make_weno
from tests.support.tiny import (
    WIDTH,
    TinyData,
    TinyEncoder,
    fit,
    no_mining,
    tiny_abmil,
    tiny_head,
    tiny_parts,
    tiny_splits,
)


def test_few_large_instances_are_enough_for_pixel_statistics(monkeypatch):
    """Thousands of large tiles would not fit in memory; a bound on numbers, not tiles, holds at any size."""
    seen = []
    monkeypatch.setattr(Preprocess, "fit", lambda _, instances: seen.append(tuple(instances.shape)))
    for values, expected in ((5 * WIDTH, 5), (1, 1)):
        monkeypatch.setattr(bags, "SAMPLE_VALUES", values)
        parts = tiny_parts() | {"preprocess": Preprocess(standardise=True)}
        method = WENO(**parts, aggregator=tiny_abmil(), student_head=tiny_head(), hpm=no_mining())
        fit(method, TinyData(tiny_splits()))
        assert seen.pop() == (expected, WIDTH)


class Witness(Preprocess):
    """Notes for how many instances it was told the bags they are of."""

    def forward(self, instances, sizes=None):
        if self.training:
            self.__dict__.setdefault("seen", []).append((len(instances), None if sizes is None else int(sizes.sum())))
        return super().forward(instances, sizes)


@pytest.mark.parametrize("make", [make_d2l, make_mhim, make_mil, make_rnn_mil, make_weno])
def test_preprocessing_knows_the_bags_of_what_it_changes(make):
    """What changes a whole bag, such as its staining, needs them; WENO's instance phase has none."""
    witness = Witness()
    fit(make(preprocess=witness), TinyData(tiny_splits()), epochs=6)
    told = [(count, of_bags) for count, of_bags in witness.seen if make is not make_weno or of_bags is not None]
    assert told
    assert all(count == of_bags for count, of_bags in told)


class Normalising(TinyEncoder):
    normalises = True


def test_images_are_not_normalised_twice():
    with pytest.raises(
        UserError, match=r"normalises images itself, and preprocess does, too: set preprocess.standardi"
    ):
        fit(make_mil(encoder=Normalising, preprocess=Preprocess(standardise=True)), TinyData(tiny_splits()))
    fit(make_mil(encoder=Normalising), TinyData(tiny_splits()))


def without_instance_labels(splits):
    return splits._replace(bags=replace(splits.bags, instance_labels=torch.empty(0, dtype=torch.long)))


@pytest.mark.parametrize("make", [make_d2l, make_mhim, make_mil, make_rnn_mil, make_weno])
def test_without_labels_of_instances_their_scores_are_left_out_and_that_is_said_once(make, capsys, recwarn):
    method = make()
    trainer = fit(method, TinyData(without_instance_labels(tiny_splits())), epochs=6)
    trainer.validate(method, datamodule=trainer.datamodule, verbose=False)
    assert capsys.readouterr().out.count("no instance labels: instance scores are left out") == 1
    assert not [key for key in trainer.callback_metrics if "instance_" in key]
    assert all(math.isfinite(value) for value in method.exact_scores.values())
    assert not [warning for warning in recwarn if "undefined" in str(warning.message)]


@pytest.mark.parametrize("aggregator", [tiny_abmil(), partial(DSMIL)], ids=["abmil", "dsmil"])
def test_bags_that_nothing_tells_apart_have_an_auroc_of_one_half(aggregator):
    """Constant features: probabilities differ in their last digits, by the sizes of the bags."""
    splits = tiny_splits(bags=40, largest=200)
    constant = splits._replace(bags=replace(splits.bags, instances=torch.ones(len(splits.bags.instances), WIDTH)))
    trainer = fit(make_mil(aggregator=aggregator), TinyData(constant), epochs=1)
    assert trainer.callback_metrics["val/model/bag_auroc"] == 0.5


def test_the_threshold_of_instances_is_chosen_on_labels_of_validation_bags():
    """Testing leaves it alone."""
    method = make_mil()
    trainer = fit(method, TinyData(tiny_splits()), epochs=2)
    tables = method.tables["val"]
    probs, in_positive_bag = tables.instances["model/probs"], tables.in_positive_bag()
    chosen = float(method.instance_thresholds[0])
    assert chosen == instance_threshold(probs, in_positive_bag)
    assert method.scores["val"]["model"]["instance_threshold"] == chosen
    trainer.test(method, datamodule=trainer.datamodule, verbose=False)
    scores, test = method.scores["test"]["model"], method.tables["test"].instances
    known = test["label"] >= 0
    decided = test["model/probs"][known] >= chosen
    assert scores["instance_accuracy_tuned"] == float((decided == (test["label"][known] > 0)).double().mean())


def test_checkpoints_from_before_instance_thresholds_decide_at_one_half():
    method = make_mil()
    method.instance_thresholds.fill_(0.8)
    older = {name: value for name, value in method.state_dict().items() if name != "instance_thresholds"}
    method.load_state_dict(older)
    assert method.instance_thresholds.tolist() == [0.5]
