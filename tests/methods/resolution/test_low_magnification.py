"""A student at low magnification taught by a table: its losses by hand, what moves, and what it may not see."""

import math
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from kd_mil.core.errors import UserError
from kd_mil.methods.resolution.table_teacher import guided_attention_loss, taught_loss
from tests.support.methods import TaughtData, checkpointing, make_low_magnification
from tests.support.tiny import TinyData, fit, tiny_abmil, tiny_splits


def test_taught_loss_by_hand():
    """KL of (3/4, 1/4) from (1/2, 1/2); a tile without a target counts as one without loss."""
    logits, targets = torch.zeros(2, 2), torch.tensor([[0.75, 0.25], [math.nan, math.nan]])
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert taught_loss(logits[:1], targets[:1]).item() == pytest.approx(expected)
    assert taught_loss(logits, targets).item() == pytest.approx(expected / 2)
    lonely = torch.zeros(2, 2, requires_grad=True)
    taught_loss(lonely, targets[1:].expand(2, 2)).backward()
    assert (lonely.grad == 0).all(), "no rank skips a backward"
    assert taught_loss(targets[:1].log(), targets[:1], 3.0).item() == pytest.approx(0, abs=1e-7)


def test_guided_attention_by_hand():
    """One bag of two with guide (1, 0) and attention (1/2, 1/2): log 2; a bag without a guide counts as 0."""
    attention, sizes = torch.tensor([0.5, 0.5, 0.3, 0.7]), torch.tensor([2, 2])
    guide = torch.tensor([1.0, 0.0, 0.0, 0.0])
    assert guided_attention_loss(attention, guide, sizes).item() == pytest.approx(math.log(2) / 2, abs=1e-5)
    assert guided_attention_loss(attention, attention, sizes).item() == pytest.approx(0, abs=1e-6)


def test_the_student_learns_the_teachers_word_and_the_aggregator_moves_nothing_of_it():
    splits = tiny_splits()
    states = []
    for aggregator in (None, tiny_abmil()):
        method = make_low_magnification(aggregator=aggregator)
        fit(method, TaughtData(splits), epochs=20)
        states.append({k: v for k, v in method.state_dict().items() if k.startswith(("encoder", "student_head"))})
        assert method.scores["val"]["student"]["instance_auroc"] > 0.9
        assert list(method.scores["val"]) == list(method.roles)
    assert all(torch.equal(one, other) for one, other in zip(*(state.values() for state in states), strict=True))
    assert method.scores["val"]["aggregate"]["bag_auroc"] >= 0


def test_no_instance_label_reaches_the_student():
    """Erasing all of them leaves every weight equal, bit for bit."""
    splits, states = tiny_splits(), []
    taught = TaughtData(splits).taught
    for erased in (False, True):
        labels = torch.full_like(splits.bags.instance_labels, -1) if erased else splits.bags.instance_labels
        data = TaughtData(splits._replace(bags=replace(splits.bags, instance_labels=labels)))
        data.taught = taught
        method = make_low_magnification(aggregator=tiny_abmil())
        fit(method, data)
        states.append(method.state_dict())
    assert states[0].keys() == states[1].keys()
    parts = [name for name in states[0] if not name.endswith("thresholds")]
    assert all(torch.equal(states[0][name], states[1][name]) for name in parts)
    assert not {"teacher_probs", "teacher_attention"} & states[0].keys(), "a checkpoint is the student alone"


def test_a_resumed_run_repeats_the_whole_one(tmp_path):
    whole, resumed = (make_low_magnification(aggregator=tiny_abmil()) for _ in range(2))
    fit(whole, TaughtData(tiny_splits()), epochs=4, **checkpointing(tmp_path))
    fit(resumed, TaughtData(tiny_splits()), epochs=4, start=tmp_path / "epoch1.ckpt")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_mistakes():
    for settings, message in (({"temperature": 0.0}, "temperature=0"), ({"w_attention": -1.0}, "w_attention=-1")):
        with pytest.raises(UserError, match=message):
            make_low_magnification(**settings)
    with pytest.raises(UserError, match="choose data=taught_slides"):
        fit(make_low_magnification(), TinyData(tiny_splits()))


def test_it_can_be_built_from_what_it_was_made_with():
    method = make_low_magnification(aggregator=partial(tiny_abmil()))
    assert method.roles == ("student", "aggregate")
    assert len(method.parts()) == 3
    assert SimpleNamespace(roles=make_low_magnification().roles).roles == ("student",)
