"""Contrast, prototypes, queue and soft labels of INS, by hand."""

import math

import pytest
import torch
import torch.nn.functional as F

from kd_mil.core.errors import UserError
from kd_mil.methods.ins.key_queue import KeyQueue
from kd_mil.methods.ins.label_table import LabelTable
from kd_mil.methods.ins.losses import class_contrast, instance_contrast
from kd_mil.methods.ins.prototypes import Prototypes

EAST, NORTH, WEST = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), torch.tensor([-1.0, 0.0])


def test_an_instance_against_its_view_and_two_others():
    """Similarities 1, 0 and -1 at temperature 1/2."""
    found = instance_contrast(EAST[None], EAST[None], torch.stack([NORTH, WEST]), temperature=0.5)
    assert float(found) == pytest.approx(-math.log(math.exp(2) / (math.exp(2) + 1 + math.exp(-2))), rel=1e-6)


def test_without_others_an_instance_is_its_view():
    assert float(instance_contrast(EAST[None], NORTH[None], torch.zeros(0, 2))) == 0


def test_classes_attract_on_four_points():
    """Two anchors and two others at temperature 1; the first anchor is alike to one other, the second to the other."""
    anchors, others = torch.stack([EAST, NORTH]), torch.stack([EAST, WEST])
    found = class_contrast(anchors, torch.tensor([0, 1]), others, torch.tensor([0, 1]), temperature=1.0)
    first = -math.log(math.e / (1 + math.e + 1 / math.e))  # similarities 0, 1, -1 to all but itself
    second = -math.log(1 / 3)  # similarities 0, 0, 0
    assert float(found) == pytest.approx((first + second) / 2, rel=1e-6)


def test_contrast_equals_a_plain_loop_over_pairs():
    generator = torch.Generator().manual_seed(0)
    points = F.normalize(torch.randn(9, 3, generator=generator, dtype=torch.float64), dim=1)
    classes = torch.tensor([0, 1, 1, 0, 0, 1, 0, 1, 1])
    total = 0.0
    for i in range(4):
        rest = [j for j in range(9) if j != i]
        scale = sum(math.exp(float(points[i] @ points[j]) / 0.2) for j in rest)
        alike = [
            math.log(math.exp(float(points[i] @ points[j]) / 0.2) / scale) for j in rest if classes[j] == classes[i]
        ]
        total -= sum(alike) / len(alike)
    found = class_contrast(points[:4], classes[:4], points[4:], classes[4:], temperature=0.2)
    assert float(found) == pytest.approx(total / 4, rel=1e-9)


def test_an_anchor_alone_in_its_class_counts_as_nothing():
    anchors = torch.stack([EAST, NORTH]).requires_grad_()
    loss = class_contrast(anchors, torch.tensor([0, 1]), WEST[None], torch.tensor([2]))
    loss.backward()
    assert loss.item() == 0
    assert anchors.grad.isfinite().all()


def test_prototypes_take_instances_one_after_the_other():
    """East, then north, at momentum .8: .2 east, then .16 east + .2 north, scaled to length 1."""
    prototypes = Prototypes(2, momentum=0.8)
    prototypes.update(torch.stack([EAST, WEST, NORTH]), torch.tensor([True, False, True]))
    torch.testing.assert_close(prototypes.vectors[1], F.normalize(torch.tensor([0.16, 0.2]), dim=0))
    torch.testing.assert_close(prototypes.vectors[0], WEST)
    assert prototypes.nearest(torch.stack([EAST, WEST])).tolist() == [True, False]


def test_a_step_without_positives_leaves_their_prototype():
    prototypes = Prototypes(2, momentum=0.5)
    prototypes.update(EAST[None], torch.tensor([True]))
    prototypes.update(NORTH[None], torch.tensor([False]))
    torch.testing.assert_close(prototypes.vectors, torch.stack([NORTH, EAST]))


def test_the_queue_keeps_the_last_keys_around_its_end():
    queue = KeyQueue(3, 1)
    assert queue.keys.shape == (0, 1)
    for values in ([1.0, 2.0], [3.0, 4.0]):
        queue.add(torch.tensor(values)[:, None], torch.tensor(values) > 2)
    assert sorted(queue.keys.squeeze(1).tolist()) == [2, 3, 4]
    assert dict(zip(queue.keys.squeeze(1).tolist(), queue.positive.tolist(), strict=True)) == {
        2: False,
        3: True,
        4: True,
    }
    queue.add(torch.arange(10.0, 15.0)[:, None], torch.ones(5, dtype=torch.bool))
    assert sorted(queue.keys.squeeze(1).tolist()) == [12, 13, 14]


def test_soft_labels_move_and_those_of_negative_bags_never_do():
    table = LabelTable()
    table.allocate(torch.tensor([True, True, False]))
    assert table.positive.tolist() == [0.5, 0.5, 0]
    table.update(torch.tensor([2, 0]), torch.tensor([False, True]), keep=0.9)
    assert table.positive.tolist() == pytest.approx([0.55, 0.5, 0])
    table.update(torch.tensor([0, 1]), torch.tensor([False, True]), keep=1.0)
    assert table.positive.tolist() == pytest.approx([0.55, 0.5, 0])
    loaded = LabelTable()
    loaded.load_state_dict(table.state_dict())
    assert loaded.positive.equal(table.positive)


def test_settings_outside_their_range_are_refused():
    with pytest.raises(UserError, match=r"method\.prototype_momentum"):
        Prototypes(2, momentum=1.0)
    with pytest.raises(UserError, match=r"method\.queue"):
        KeyQueue(0, 2)
