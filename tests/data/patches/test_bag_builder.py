import pytest
import torch

from kd_mil.core.errors import UserError
from kd_mil.data.patches.bag_builder import build_bags, count_bags, limit_bags

# Positive and negative bags of the authors' code: CIFAR-10 has 5,000 trucks and 45,000 others to train on, and a fifth
# of that to test on.
CIFAR_COUNTS = {
    0.01: ((226, 226), (45, 45)),
    0.05: ((229, 230), (45, 46)),
    0.1: ((236, 236), (47, 47)),
    0.2: ((250, 250), (50, 50)),
    0.5: ((100, 100), (20, 20)),
    0.7: ((71, 71), (14, 14)),
}
NCT_TUMOUR = 14317
NCT_OTHERS = (10407, 10566, 11512, 11557, 8896, 13536, 8763, 10446)
CRC_COUNTS = {0.1: (360, 90), 0.2: (380, 95), 0.5: (229, 57), 0.7: (163, 40)}


@pytest.mark.parametrize("ratio", CIFAR_COUNTS)
def test_counts_of_cifar(ratio):
    train, test = CIFAR_COUNTS[ratio]
    assert count_bags(5000, 45000, 100, ratio) == train
    assert count_bags(1000, 9000, 100, ratio) == test


@pytest.mark.parametrize("ratio", CRC_COUNTS)
def test_counts_of_crc(ratio):
    train, test = CRC_COUNTS[ratio]
    tested = [round(size / 5) for size in NCT_OTHERS]
    assert count_bags(round(NCT_TUMOUR / 5), sum(tested), 100, ratio) == (test, test)
    assert count_bags(NCT_TUMOUR - round(NCT_TUMOUR / 5), sum(NCT_OTHERS) - sum(tested), 100, ratio) == (train, train)


@pytest.mark.parametrize("ratio", CIFAR_COUNTS)
def test_bags_of_cifar_hold_exactly_the_ratio_and_no_image_twice(ratio):
    is_positive = torch.arange(10000) % 10 == 9
    plan = build_bags(is_positive, 100, ratio, seed=3)
    expected_positive, expected_negative = CIFAR_COUNTS[ratio][1]
    assert plan.instances.shape == (expected_positive + expected_negative, 100)
    assert plan.labels.tolist() == [1] * expected_positive + [0] * expected_negative
    assert plan.instances.unique().numel() == plan.instances.numel()
    positives = is_positive[plan.instances].sum(1)
    assert (positives == round(100 * ratio) * plan.labels).all()


def test_positives_lie_anywhere_in_their_bag():
    is_positive = torch.arange(10000) % 10 == 9
    plan = build_bags(is_positive, 100, 0.2)
    where = is_positive[plan.instances[plan.labels == 1]].float().mean(0)
    assert float(where.mean()) == pytest.approx(0.2)
    assert float(where.max()) < 0.5


def test_bags_are_a_function_of_the_seed():
    is_positive = torch.arange(1000) % 5 == 0
    first, again, other = (build_bags(is_positive, 10, 0.2, seed=seed).instances for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_bags_of_positives_only():
    assert count_bags(100, 100, 10, 1.0) == (10, 10)
    plan = build_bags(torch.arange(200) < 100, 10, 1.0)
    assert (plan.instances[plan.labels == 1] < 100).all()


def test_more_negative_than_positive_bags():
    positive, negative = count_bags(5000, 45000, 100, 0.2, positive_bag_ratio=0.25)
    assert negative == 3 * positive


def test_limited_bags_are_balanced_and_nested():
    plan = build_bags(torch.arange(10000) % 10 == 9, 100, 0.2)
    few, more = limit_bags(plan, 10), limit_bags(plan, 20)
    assert few.labels.tolist() == [1] * 5 + [0] * 5
    assert set(few.instances.flatten().tolist()) < set(more.instances.flatten().tolist())
    assert limit_bags(plan, None) is plan
    assert limit_bags(plan, 10**6) is plan
    with pytest.raises(UserError, match="at least 2"):
        limit_bags(plan, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((50, 50, 10, 0.0), "positive_ratio=0.0: a share"),
        ((50, 50, 10, 1.2), "positive_ratio=1.2: a share"),
        ((50, 50, 10, -0.1), "positive_ratio=-0.1"),
        ((50, 50, 10, 0.05), "less than one instance"),
        ((50, 50, 10, 0.2, 1.0), "positive_bag_ratio=1.0"),
        ((50, 5, 10, 0.2), "give 0 positive and 0 negative bags"),
        ((0, 500, 10, 0.2), "0 positive and 500 negative instances"),
    ],
)
def test_impossible_bags_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        count_bags(*arguments)
