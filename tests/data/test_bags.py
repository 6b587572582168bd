"""Packed bags: what is cut out is what was put in, and malformed sets are refused in one line."""

import pytest
import torch

from kd_mil.core.errors import UserError
from kd_mil.data.bags import Bags
from kd_mil.data.single_bags import Bag

SIZES = [3, 1, 4]


def make_bags(**changes):
    total = sum(SIZES)
    fields = {
        "instances": torch.arange(total * 2.0).view(total, 2),
        "sizes": torch.tensor(SIZES),
        "labels": torch.tensor([0, 1, 1]),
        "bag_ids": ["a", "b", "c"],
        "instance_labels": torch.tensor([0, 0, 0, 1, 0, 1, 0, 1]),
        "coords": torch.arange(total * 2).view(total, 2),
    }
    return Bags(**(fields | changes))


def test_a_batch_lays_whole_bags_end_to_end_in_the_order_asked_for():
    bags = make_bags()
    batch = bags.batch(torch.tensor([2, 0]))
    assert batch.sizes.tolist() == [4, 3]
    assert batch.instance_ids.tolist() == [4, 5, 6, 7, 0, 1, 2]
    assert batch.labels.tolist() == [1, 0]
    assert batch.instance_labels.tolist() == [0, 1, 0, 1, 0, 0, 0]
    assert batch.bag_ids == ["c", "a"]
    assert torch.equal(batch.instances, bags.instances[batch.instance_ids])
    assert batch.coords.tolist() == bags.coords[batch.instance_ids].tolist()


def test_an_instance_batch_knows_the_bag_of_each_instance():
    batch = make_bags().instance_batch(torch.tensor([7, 0, 3]))
    assert batch.bag_indices.tolist() == [2, 0, 1]
    assert batch.labels.tolist() == [1, 0, 1]
    assert batch.instances[:, 0].tolist() == [14.0, 0.0, 6.0]


def test_lazy_instances_give_the_same_batches():
    resident = make_bags()

    class Reader:
        shape, dtype = resident.instances.shape, resident.instances.dtype

        def __getitem__(self, positions):
            return resident.instances[positions]

    lazy = make_bags(instances=Reader())
    for one, other in zip(resident.batch(torch.tensor([1, 2])), lazy.batch(torch.tensor([1, 2])), strict=True):
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other
    assert lazy.nbytes == resident.nbytes == 8 * 2 * 4


def test_tables_take_thirteen_bytes_an_instance_and_batches_are_as_wide_as_ever():
    bags = make_bags()
    tables = (bags.instance_labels, bags.coords, bags.bag_of_instance)
    assert sum(table.nbytes for table in tables) == 13 * sum(SIZES)
    batch, single = bags.batch(torch.tensor([1, 2])), bags.instance_batch(torch.tensor([0]))
    wide = (batch.instance_labels, batch.coords, batch.bag_indices, single.instance_labels, single.bag_indices)
    assert {table.dtype for table in wide} == {torch.int64}


def test_values_that_no_narrow_type_holds_stay_as_they_are():
    far = torch.full((8, 2), 2**31)
    bags = make_bags(coords=far, instance_labels=torch.tensor([0, 1, 200, -1, 0, 0, 0, 0]))
    assert torch.equal(bags.batch(torch.tensor([0])).coords, far[:3])
    assert bags.instance_batch(torch.tensor([2, 3])).instance_labels.tolist() == [200, -1]


def test_unknown_instance_labels_are_minus_one():
    assert make_bags(instance_labels=torch.empty(0, dtype=torch.long)).instance_labels.tolist() == [-1] * 8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sizes": torch.tensor([3, 0, 5])}, "bag 'b' is empty"),
        ({"labels": torch.tensor([0, 2, 1])}, "bag 'b' has label 2, outside the 2 classes"),
        ({"bag_ids": ["a", "b", "a"]}, "bag id 'a' occurs more than once"),
        ({"sizes": torch.tensor([3, 1, 3])}, "add up to 7, but there are 8 instances"),
        ({"labels": torch.tensor([0, 1])}, "3 bag ids but 2 labels"),
        ({"case_ids": ["x"]}, "3 bag ids but 1 case_ids"),
        ({"bag_ids": ["a", "=cmd|'/C calc'!A0", "c"]}, "bag id .* begins as a formula"),
        ({"case_ids": ["p", "q", "@p"]}, "case_id '@p' begins as a formula"),
        ({"class_names": ("none", "+1+1")}, "class '.1.1' begins as a formula"),
        ({"bag_ids": ["a", "b\nc", "c"]}, "holds a line break"),
    ],
)
def test_malformed_sets_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        make_bags(**changes)


def test_one_class_alone_is_refused():
    with pytest.raises(UserError, match="all bags have the one class"):
        make_bags(class_names=("only",))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"instance_labels": [[0, 1, 1], [0]]}, r"bag '0' has 2 instances, but instance_labels of shape \(3,\)"),
        ({"instance_labels": [[0, 0.5], [1, 1]]}, "bag '0' has instance_labels that are no whole numbers"),
        ({"coords": [[[0, 0]] * 3, [[0, 0]]]}, r"bag '0' has 2 instances, but coords of shape \(3, 2\)"),
        ({"coords": [[0, 1], [0, 1]]}, r"bag '0' has 2 instances, but coords of shape \(2,\)"),
    ],
)
def test_what_is_said_of_instances_is_said_of_each(given, message):
    """Two lengths that add up to the right one would shift all that follows."""
    pairs = [dict(zip(given, values, strict=True)) for values in zip(*given.values(), strict=True)]
    bags = [Bag(torch.zeros(2, 4), label, **own) for label, own in enumerate(pairs)]
    with pytest.raises(UserError, match=message):
        Bags.from_list(bags)


def test_coordinates_are_as_many_as_instances():
    with pytest.raises(UserError, match=r"4 instances, but coords of shape \(3, 2\)"):
        Bags(torch.zeros(4, 2), torch.tensor([2, 2]), torch.tensor([0, 1]), ["a", "b"], coords=torch.zeros(3, 2).long())
