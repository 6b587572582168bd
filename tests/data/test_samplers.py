"""Samplers: everything once, budgets kept, ranks in step, order a function of (seed, epoch)."""

import pytest
import torch
from torch.utils.data import DataLoader

from kd_mil.data.samplers import (
    BagSampler,
    IndexedView,
    InstanceSampler,
    InstancesBySlide,
    InTurn,
    MoreBags,
    equal_shares,
    equally_frequent,
)
from tests.support.tiny import TinyData, tiny_splits

SIZES = torch.tensor([5, 50, 3, 20, 8, 9, 41, 2, 7])
BAGS = torch.tensor([0, 1, 2, 3, 4, 5, 6, 8])


def flat(batches):
    return torch.cat(list(batches)).tolist()


@pytest.mark.parametrize("bags_per_step", [1, 3, 100])
@pytest.mark.parametrize("budget", [None, 1, 25, 1000])
def test_every_bag_comes_exactly_once_and_the_budget_holds(bags_per_step, budget):
    sampler = BagSampler(SIZES, BAGS, bags_per_step, budget, seed=1)
    batches = list(sampler)
    assert sorted(flat(batches)) == BAGS.tolist()
    for batch in batches:
        assert len(batch) <= bags_per_step
        assert budget is None or len(batch) == 1 or SIZES[batch].sum() <= budget


def test_a_budget_closes_a_step_only_when_it_is_spent():
    """By hand: six bags of 10 instances, 25 at a time, four bags at most."""
    sampler = BagSampler(torch.full((6,), 10), torch.arange(6), 4, 25)
    assert [len(batch) for batch in sampler] == [2, 2, 2]


def test_order_is_a_function_of_seed_and_epoch():
    def order(seed, epoch):
        sampler = BagSampler(SIZES, BAGS, 1, seed=seed)
        sampler.set_epoch(epoch)
        return flat(sampler)

    assert order(0, 3) == order(0, 3)
    assert order(0, 3) != order(0, 4)
    assert order(0, 3) != order(1, 3)


def test_more_bags_are_whole_passes_in_orders_of_their_own():
    """Eight bags, twenty steps: two passes and four bags; none in the order of the epoch's first pass."""
    sampler = MoreBags(20, SIZES, BAGS, 1, seed=3)
    together = flat(sampler)
    assert len(sampler) == len(together) == 20
    first, second, rest = together[:8], together[8:16], together[16:]
    assert sorted(first) == sorted(second) == BAGS.tolist()
    assert len(set(rest)) == 4
    assert len({tuple(first), tuple(second), tuple(flat(BagSampler(SIZES, BAGS, 1, seed=3)))}) == 3
    assert flat(sampler) == together, "a function of seed and epoch"


def test_length_is_told_unless_the_order_decides_it():
    assert len(BagSampler(SIZES, BAGS, 3)) == 3
    assert len(BagSampler(SIZES, BAGS, 9, 60, shuffle=False)) == len(
        list(BagSampler(SIZES, BAGS, 9, 60, shuffle=False))
    )
    with pytest.raises(TypeError, match="vary"):
        len(BagSampler(SIZES, BAGS, 3, 60))


@pytest.mark.parametrize(("count", "steps"), [(100, 4), (96, 3), (97, 3), (2, 1)])
def test_instances_come_once_and_no_step_is_left_with_one(count, steps):
    """97 instances in steps of 32 leave one over, too few for batch normalisation."""
    instances = torch.arange(count) + 1000
    batches = list(InstanceSampler(instances, 32, seed=2))
    assert len(batches) == steps == len(InstanceSampler(instances, 32))
    assert min(len(batch) for batch in batches) >= 2
    seen = flat(batches)
    assert len(seen) == len(set(seen)) >= count - 1
    assert set(seen) <= set(instances.tolist())


def test_in_turn_shows_one_view_after_the_other_and_follows_the_epoch():
    epoch = 0
    bags = DataLoader(IndexedView(lambda x: ("bag", x.tolist())), sampler=BagSampler(SIZES, BAGS, 4), batch_size=None)
    sampler = InstanceSampler(torch.arange(64), 32)
    instances = DataLoader(IndexedView(lambda x: ("instance", x.tolist())), sampler=sampler, batch_size=None)
    loader = InTurn([bags, instances], epoch=lambda: epoch)
    first = list(loader)
    assert [name for name, _ in first] == ["bag", "bag", "instance", "instance"]
    assert len(loader) == 4
    epoch = 1
    assert list(loader) != first
    epoch = 0
    assert list(loader) == first


@pytest.mark.parametrize("shares", [1, 2, 3, 8])
def test_equal_shares_hold_everything_once_and_none_is_empty(shares):
    """Within Graham's bound of 4/3 of the mean or the largest bag, whichever is more."""
    sizes = SIZES[BAGS]
    dealt = equal_shares(sizes, shares)
    assert sorted(torch.cat(dealt).tolist()) == list(range(len(sizes)))
    assert all(len(positions) for positions in dealt)
    largest = max(int(sizes[positions].sum()) for positions in dealt)
    assert largest <= 4 / 3 * max(float(sizes.sum()) / shares, int(sizes.max()))


def test_a_few_training_bags_are_of_all_classes():
    whole, few = TinyData(tiny_splits(bags=24)), TinyData(tiny_splits(bags=24), limit_bags=5)
    whole.setup()
    few.setup()
    assert few.bags.labels[few.splits.train].bincount().tolist() == [3, 2]
    assert set(few.splits.train.tolist()) < set(whole.splits.train.tolist())
    assert few.splits.test.equal(whole.splits.test)


def test_balanced_bags_are_equally_frequent_and_a_function_of_seed_and_epoch():
    """20 bags of which 3 are positive: ten draws of each class; the rare ones in whole passes, frequent ones once."""
    labels = torch.tensor([0] * 17 + [1] * 3)

    def order(seed, epoch):
        sampler = BagSampler(torch.ones(20).long(), torch.arange(20), 1, seed=seed)
        sampler.labels = labels
        sampler.set_epoch(epoch)
        return torch.cat(list(sampler))

    first = order(0, 0)
    counts = torch.bincount(first, minlength=20)
    assert torch.bincount(labels[first]).tolist() == [10, 10]
    assert counts[:17].max() == 1
    assert sorted(counts[17:].tolist()) == [3, 3, 4]
    assert torch.equal(first, order(0, 0))
    assert not torch.equal(first, order(0, 1))
    assert not torch.equal(first, order(1, 0))


def test_balanced_bags_of_three_classes_share_what_is_left():
    items, labels = torch.arange(8), torch.tensor([0, 0, 0, 0, 0, 0, 1, 2])
    drawn = equally_frequent(items, labels, torch.Generator().manual_seed(0))
    assert torch.bincount(labels[drawn]).tolist() == [3, 3, 2]


@pytest.mark.parametrize("view", ["bag_loader", "instance_loader", "more_bags_loader"])
def test_ranks_have_all_tables_of_a_step_and_their_share_of_its_instances(view):
    """Three ranks together read what one process reads, in its order; bags of one instance leave two without any."""
    splits = tiny_splits(bags=24, smallest=1)
    steps = []
    for rank, ranks in ((0, 1), (0, 3), (1, 3), (2, 3)):
        data = TinyData(splits, instances_per_step=7)
        data.setup()
        data._shard = lambda rank=rank, ranks=ranks: (rank, ranks)
        steps.append(list(getattr(data, view)()))
    for whole, *dealt in zip(*steps, strict=True):
        for batch in dealt:
            assert torch.equal(batch.instance_ids, whole.instance_ids)
            assert torch.equal(batch.labels, whole.labels)
            assert len(batch.instances) == len(batch.share.rows)
        assert torch.equal(torch.cat([batch.share.real(batch.instances) for batch in dealt]), whole.instances)


@pytest.mark.parametrize("epoch", [0, 1])
def test_instances_by_slide_come_once_in_runs_of_neighbours(epoch):
    sizes = torch.tensor([70, 1, 200, 33, 64] * 30)
    instances = torch.arange(1000, 1000 + int(sizes.sum()))
    sampler = InstancesBySlide(instances, 256, sizes, seed=3)
    sampler.set_epoch(epoch)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    order = torch.cat(batches)
    assert len(order.unique()) == len(order) >= len(instances) - 1
    owners = torch.arange(len(sizes)).repeat_interleave(sizes)[order - 1000]
    breaks = (order.diff() != 1) | (owners.diff() != 0)
    assert int(breaks.sum()) < 1.1 * int(((sizes + 31) // 32).sum()), "runs of up to 32"
    assert max(len(owners[start : start + 2000].unique()) for start in range(0, len(owners), 500)) <= 2 * 64
    assert len(owners[:256].unique()) >= 5, "a batch mixes bags"
    again = InstancesBySlide(instances, 256, sizes, seed=3)
    again.set_epoch(epoch)
    assert torch.equal(order, torch.cat(list(again))), "a function of seed and epoch"
    again.set_epoch(epoch + 1)
    assert not torch.equal(order, torch.cat(list(again)))
