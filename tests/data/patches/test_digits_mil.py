"""Bags of digits with several positive classes."""

import pytest
import torch
from sklearn.datasets import load_digits

from kd_mil.core.errors import UserError
from kd_mil.data.datamodules import Loading
from kd_mil.data.patches.digits_mil import DigitsClasses


def loaded(**settings):
    data = DigitsClasses(Loading(), **settings)
    data.setup()
    return data


def test_a_bag_holds_one_positive_class_or_none():
    data = loaded()
    bags = data.bags
    assert bags.class_names == ("negative", "digit_7", "digit_8", "digit_9")
    assert data.model_inputs["num_classes"] == 4
    for label, truth in zip(bags.labels.tolist(), bags.instance_labels.split(10), strict=True):
        assert sorted(truth.tolist()) == [0] * (8 if label else 10) + [label] * (2 if label else 0)
    for part in data.splits[1:]:
        counts = bags.labels[part].bincount(minlength=4)
        assert (counts[1:] >= 4).all()
        assert abs(int(counts[0]) - int(counts[1:].sum())) <= 3


def test_instances_are_the_digits_they_are_said_to_be_and_none_occurs_twice():
    data = loaded(seed=3)
    pixels = torch.from_numpy(load_digits().images).mul(255 / 16).round().to(torch.uint8).flatten(1)
    known = {row.numpy().tobytes(): digit for row, digit in zip(pixels, load_digits().target, strict=True)}
    rows = [row.numpy().tobytes() for row in data.bags.instances.flatten(1)]
    for row, label in zip(rows, data.bags.instance_labels.tolist(), strict=True):
        assert {7: 1, 8: 2, 9: 3}.get(known[row], 0) == label
    assert len(set(rows)) == len(rows)


def test_seed_and_split_are_repeatable():
    assert loaded().fingerprint() == loaded().fingerprint() != loaded(seed=1).fingerprint()


def test_mistakes_are_named():
    with pytest.raises(UserError, match="each class once"):
        loaded(positive_classes=[7, 7])
    with pytest.raises(UserError, match="'11'"):
        loaded(positive_classes=[11])
