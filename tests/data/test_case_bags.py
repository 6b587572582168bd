"""Cases as bags, by hand."""

from dataclasses import replace

import pytest
import torch

from kd_mil.core.errors import UserError
from kd_mil.data.bags import Bags, BagSplits
from kd_mil.data.case_bags import merged_by_case

BAGS = Bags(
    instances=torch.arange(7.0)[:, None],
    sizes=torch.tensor([2, 1, 3, 1]),
    labels=torch.tensor([0, 0, 1, 0]),
    bag_ids=["s1", "s2", "s3", "s4"],
    instance_labels=torch.tensor([0, 0, 0, 1, -1, 0, 0]),
    coords=torch.zeros(7, 2, dtype=torch.long),
    case_ids=["p", "q", "p", "r"],
)
SPLITS = BagSplits(BAGS, torch.tensor([0, 2]), torch.tensor([1]), torch.tensor([3]))


class Lazy:
    def __init__(self, values):
        self.values, self.shape, self.dtype = values, tuple(values.shape), values.dtype

    def __getitem__(self, positions):
        return self.values[positions]


@pytest.mark.parametrize("lazy", [False, True])
def test_a_case_is_the_bag_of_its_slides(lazy):
    """Slides 1 and 3 of patient p: five instances, positive as the third slide is."""
    given = SPLITS._replace(bags=replace(BAGS, instances=Lazy(BAGS.instances))) if lazy else SPLITS
    bags, train, val, test = merged_by_case(given)
    assert (bags.bag_ids, bags.sizes.tolist(), bags.labels.tolist()) == (["p", "q", "r"], [5, 1, 1], [1, 0, 0])
    assert (train.tolist(), val.tolist(), test.tolist()) == ([0], [1], [2])
    batch = bags.batch(torch.tensor([0]))
    assert batch.instances.flatten().tolist() == [0, 1, 3, 4, 5]
    assert batch.instance_labels.tolist() == [0, 0, 1, -1, 0]
    assert batch.coords is None


def test_cases_of_one_slide_change_nothing_but_names():
    alone = replace(BAGS, case_ids=["a", "b", "c", "d"])
    merged = merged_by_case(SPLITS._replace(bags=alone)).bags
    assert torch.equal(merged.instances, BAGS.instances)
    assert merged.coords is not None


def test_two_positive_classes_in_one_case_are_refused():
    odd = replace(BAGS, labels=torch.tensor([1, 0, 2, 0]), class_names=("none", "x", "y"))
    with pytest.raises(UserError, match="case 'p' has slides of 'x' and of 'y'"):
        merged_by_case(SPLITS._replace(bags=odd))
