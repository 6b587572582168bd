"""Samplers: everything once, budgets kept, ranks in step, order a function of (seed, epoch)."""

import pytest
import torch
from torch.utils.data import DataLoader

from kd_mil.data.samplers import BagSampler, IndexedView, InstanceSampler, InTurn, equal_shares
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


def test_order_is_a_function_of_seed_and_epoch():
    def order(seed, epoch):
        sampler = BagSampler(SIZES, BAGS, 1, seed=seed)
        sampler.set_epoch(epoch)
        return flat(sampler)

    assert order(0, 3) == order(0, 3)
    assert order(0, 3) != order(0, 4)
    assert order(0, 3) != order(1, 3)


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("budget", [None, 30])
def test_ranks_take_equally_many_steps_and_together_see_every_bag(world_size, budget):
    ranks = [list(BagSampler(SIZES, BAGS, 2, budget, rank=r, world_size=world_size)) for r in range(world_size)]
    assert len({len(batches) for batches in ranks}) == 1
    assert {bag for batches in ranks for bag in flat(batches)} == set(BAGS.tolist())


def test_two_ranks_share_the_batches_of_one_process():
    """Step k of two ranks holds the bags of step k of one process with twice the bags."""
    one = list(BagSampler(SIZES, BAGS, 2, seed=5))
    two = [list(BagSampler(SIZES, BAGS, 1, seed=5, rank=r, world_size=2)) for r in range(2)]
    assert [flat(pair) for pair in zip(*two, strict=True)] == [batch.tolist() for batch in one]


def test_length_is_told_unless_the_order_decides_it():
    assert len(BagSampler(SIZES, BAGS, 3)) == 3
    assert len(BagSampler(SIZES, BAGS, 3, world_size=2)) == 2
    assert len(BagSampler(SIZES, BAGS, 9, 60, shuffle=False)) == len(
        list(BagSampler(SIZES, BAGS, 9, 60, shuffle=False))
    )
    with pytest.raises(TypeError, match="vary"):
        len(BagSampler(SIZES, BAGS, 3, 60))


@pytest.mark.parametrize(
    ("count", "world_size", "steps"), [(100, 1, 4), (96, 1, 3), (97, 1, 3), (101, 2, 2), (70, 2, 2)]
)
def test_instances_come_once_and_no_step_is_left_with_one(count, world_size, steps):
    """97 instances in steps of 32 leave one over, too few for batch normalisation."""
    instances = torch.arange(count) + 1000
    ranks = [list(InstanceSampler(instances, 32, seed=2, rank=r, world_size=world_size)) for r in range(world_size)]
    for batches in ranks:
        assert len(batches) == steps == len(InstanceSampler(instances, 32, world_size=world_size))
        assert min(len(batch) for batch in batches) >= 2
    seen = [index for batches in ranks for index in flat(batches)]
    assert len(seen) == len(set(seen)) >= count - 2 * world_size
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


@pytest.mark.parametrize("world_size", [2, 4])
def test_balanced_ranks_take_alike_batches_in_each_step_and_together_every_bag_once(world_size):
    """What a step costs is its largest batch: less than a third of the plain deal's excess is left."""
    sizes = torch.randint(1, 10_000, (256,), generator=torch.Generator().manual_seed(0))

    def deal(balance, epoch=0):
        ranks = []
        for rank in range(world_size):
            sampler = BagSampler(sizes, torch.arange(256), 1, seed=5, rank=rank, world_size=world_size, balance=balance)
            sampler.set_epoch(epoch)
            ranks.append(flat(sampler))
        return ranks

    def excess(ranks):
        held = sizes[torch.tensor(ranks)].float()
        return float((held.max(0).values - held.mean(0)).sum())

    plain, balanced = deal(False), deal(True)
    assert sorted(torch.tensor(balanced).flatten().tolist()) == list(range(256))
    assert excess(balanced) < excess(plain) / 3
    totals = sizes[torch.tensor(balanced)].sum(1).float()
    assert totals.max() / totals.min() < 1.05
    assert balanced == deal(True)
    assert balanced != deal(True, epoch=1)


def test_one_process_keeps_its_order_when_ranks_are_balanced():
    plain, balanced = (BagSampler(SIZES, BAGS, 2, seed=1, balance=balance) for balance in (False, True))
    assert flat(plain) == flat(balanced)


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
