"""Segment operations against plain loops over the bags."""

import pytest
import torch
from torch.autograd import gradcheck

from kd_mil.models import segments
from kd_mil.models.segments import (
    kept_positions,
    known_sizes,
    segment_argmax,
    segment_dot,
    segment_ids,
    segment_max,
    segment_mean,
    segment_min,
    segment_softmax,
    segment_sum,
    segment_weighted_sum,
    segment_weighted_sum_of_parts,
)

BATCHES = {"few": (1, 3, 2, 7, 1), "many": (40, 1, 25, 60), "one bag": (9,), "bag of one": (1,)}


@pytest.fixture(params=BATCHES.values(), ids=BATCHES.keys())
def sizes(request):
    return torch.tensor(request.param)


def values_of(sizes, *shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(int(sizes.sum()), *shape, generator=generator, dtype=torch.float64)


def per_bag(function, sizes, *tensors):
    """The plain loop: `function` on each bag of each tensor."""
    return [function(*bag) for bag in zip(*(tensor.split(sizes.tolist()) for tensor in tensors), strict=True)]


def test_values_by_hand():
    sizes, values = torch.tensor([3, 1, 2]), torch.tensor([1.0, 5, 3, -2, 4, 4])
    assert segment_ids(sizes, 6).tolist() == [0, 0, 0, 1, 2, 2]
    assert segment_sum(values, sizes).tolist() == [9, -2, 8]
    assert segment_mean(values, sizes).tolist() == [3, -2, 4]
    assert segment_max(values, sizes).tolist() == [5, -2, 4]
    assert segment_min(values, sizes).tolist() == [1, -2, 4]
    assert segment_argmax(values, sizes).tolist() == [1, 3, 4], "positions in the batch, the first of equals"
    assert segment_softmax(values, sizes)[3:].tolist() == [1, 0.5, 0.5]
    weights = torch.tensor([1.0, 0, 2, 3, 1, -1])
    assert segment_weighted_sum(values[:, None], weights, sizes).tolist() == [[7], [-6], [0]]


def test_one_dimensional_operations_equal_loop(sizes):
    values = values_of(sizes)
    torch.testing.assert_close(
        segment_softmax(values, sizes), torch.cat(per_bag(lambda x: x.softmax(0), sizes, values))
    )
    for operation, plain in (
        (segment_sum, torch.sum),
        (segment_mean, torch.mean),
        (segment_max, torch.max),
        (segment_min, torch.min),
    ):
        torch.testing.assert_close(operation(values, sizes), torch.stack(per_bag(plain, sizes, values)))


def test_vector_operations_equal_loop(sizes):
    values, weights, class_weights = values_of(sizes, 5), values_of(sizes, seed=1), values_of(sizes, 3, seed=2)
    torch.testing.assert_close(segment_sum(values, sizes), torch.stack(per_bag(lambda v: v.sum(0), sizes, values)))
    torch.testing.assert_close(segment_mean(values, sizes), torch.stack(per_bag(lambda v: v.mean(0), sizes, values)))
    expected = torch.stack(per_bag(lambda v, w: w @ v, sizes, values, weights))
    torch.testing.assert_close(segment_weighted_sum(values, weights, sizes), expected)
    expected = torch.stack(per_bag(lambda v, w: w.T @ v, sizes, values, class_weights))
    torch.testing.assert_close(segment_weighted_sum(values, class_weights, sizes), expected)
    queries = values_of(sizes, 3, 5)[: len(sizes)]
    owner = segment_ids(sizes, len(values))
    expected = torch.stack([queries[bag] @ value for value, bag in zip(values, owner, strict=True)])
    torch.testing.assert_close(segment_dot(values, queries, sizes), expected)


@pytest.mark.parametrize("part", [1, 4, 1000])
def test_parts_may_cut_bags_anywhere(sizes, part):
    values, weights = values_of(sizes, 5), values_of(sizes, seed=1)
    whole = segment_weighted_sum(values, weights, sizes)
    torch.testing.assert_close(segment_weighted_sum_of_parts(values.split(part), weights, sizes), whole)


@pytest.mark.parametrize("batch", ["few", "one bag"])
@pytest.mark.parametrize("few_instances", [0, 16], ids=["product per bag", "gather"])
def test_gradients(batch, few_instances, monkeypatch):
    monkeypatch.setattr(segments, "FEW_INSTANCES", few_instances)
    sizes = torch.tensor(BATCHES[batch])
    logits, values = values_of(sizes).requires_grad_(), values_of(sizes, 2).requires_grad_()
    class_weights = values_of(sizes, 2, seed=1).requires_grad_()
    queries = values_of(sizes, 3, 2)[: len(sizes)].clone().requires_grad_()
    for operation in (segment_sum, segment_mean, segment_max, segment_min, segment_softmax):
        assert gradcheck(lambda x, operation=operation: operation(x, sizes), logits)
    assert gradcheck(lambda v, w: segment_weighted_sum(v, w, sizes), (values, logits))
    assert gradcheck(lambda v, w: segment_weighted_sum(v, w, sizes), (values, class_weights))
    assert gradcheck(lambda v, w: segment_weighted_sum_of_parts(v.split(3), w, sizes), (values, logits))
    assert gradcheck(lambda v, q: segment_dot(v, q, sizes), (values, queries))


def test_softmax_is_stable():
    sizes = torch.tensor([2, 2, 1])
    logits = torch.tensor([1e4, 1e4 - 1, -1e4, -1e4, -torch.finfo(torch.float32).max])
    expected = torch.cat(per_bag(lambda x: x.softmax(0), sizes, logits))
    torch.testing.assert_close(segment_softmax(logits, sizes), expected)


def test_softmax_of_a_large_bag_keeps_float32_accuracy():
    sizes = torch.tensor([50_000, 3])
    logits = torch.randn(50_003, generator=torch.Generator().manual_seed(0)) * 3
    exact = torch.cat([bag.double().softmax(0) for bag in logits.split(sizes.tolist())])
    torch.testing.assert_close(segment_softmax(logits, sizes).double(), exact, rtol=1e-5, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_types_are_summed_in_float32(dtype):
    sizes = torch.tensor([3000, 1])
    logits = torch.zeros(3001, dtype=dtype)
    attention = segment_softmax(logits, sizes)
    assert attention.dtype == torch.float32
    torch.testing.assert_close(segment_sum(attention, sizes), torch.ones(2))
    ones = torch.ones(3001, 2, dtype=dtype)
    assert segment_sum(ones, sizes).tolist() == [[3000, 3000], [1, 1]], "a bfloat16 sum of ones stops at 256"
    torch.testing.assert_close(segment_weighted_sum(ones, attention, sizes), torch.ones(2, 2), rtol=1e-4, atol=0)


def test_argmax_of_nan_stays_in_its_bag():
    sizes = torch.tensor([2, 3])
    positions = segment_argmax(torch.tensor([1.0, 2.0, float("nan"), 1.0, 2.0]), sizes)
    assert positions[0] == 1
    assert 2 <= positions[1] < 5


def test_max_gradient_goes_to_the_first_largest():
    values = torch.tensor([1.0, 3.0, 3.0], requires_grad=True)
    segment_max(values, torch.tensor([3])).sum().backward()
    assert values.grad.tolist() == [0, 1, 0]


@pytest.mark.parametrize("lengths", [(4,), (3, 2)])
def test_products_with_queries_of_each_bag_are_not_narrowed(lengths):
    """Two bags have queries of their own; under autocast to bfloat16 nothing is lost."""
    sizes = torch.tensor(lengths)
    values, queries = values_of(sizes, 6).float(), values_of(torch.tensor([len(lengths)]), 2, 6, seed=1).float()
    expected = torch.cat([bag @ query.t() for bag, query in zip(values.split(lengths), queries, strict=True)])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = segment_dot(values, queries, sizes)
        product = segments.multiply(values, queries[0].t())
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(product, values @ queries[0].t())


def test_sums_over_large_bags_of_equal_values_are_those_of_each_bag_alone():
    """A running sum in float32 would be off by 3e-4 of it."""
    sizes = torch.tensor([20_000, 300, 20_000])
    weights = (1 / sizes).repeat_interleave(sizes)[:, None].expand(-1, 2).contiguous()
    values = torch.full((int(sizes.sum()), 16), 1.9)
    bags = zip(values.split(sizes.tolist()), weights.split(sizes.tolist()), strict=True)
    alone = torch.cat([segment_weighted_sum(bag, of_bag, torch.tensor([len(bag)])) for bag, of_bag in bags])
    torch.testing.assert_close(segment_weighted_sum(values, weights, sizes), alone, rtol=1e-6, atol=0)


@pytest.mark.parametrize("sizes", [[7], [3, 1, 3]])
def test_columns_are_taken_by_themselves(sizes):
    values, sizes = torch.randn(7, 3, generator=torch.Generator().manual_seed(0)), torch.tensor(sizes)
    values[2] = values[0]  # equal ones: the first is the largest
    soft, largest = segment_softmax(values, sizes), segment_argmax(values, sizes)
    assert largest.shape == (len(sizes), 3)
    for number, column in enumerate(values.unbind(1)):
        start = 0
        for bag, size in enumerate(sizes.tolist()):
            own = column[start : start + size]
            torch.testing.assert_close(soft[start : start + size, number], own.exp() / own.exp().sum())
            assert largest[bag, number] == start + own.tolist().index(max(own.tolist()))
            start += size


def test_one_large_bag_sums_to_one():
    """50,000 equal and unequal logits, one column and two: within 1e-6 of the exact softmax."""
    logits = torch.randn(50_000, 2, generator=torch.Generator().manual_seed(0))
    logits[:, 1] = 0.3
    for values in (logits, logits[:, 0], logits[:, 1].contiguous()):
        found = segment_softmax(values, torch.tensor([50_000])).double()
        torch.testing.assert_close(found.sum(0), torch.ones_like(found.sum(0)), rtol=0, atol=1e-6)
        torch.testing.assert_close(found, values.double().softmax(0), rtol=1e-5, atol=0)


def test_sizes_are_known_as_numbers(sizes):
    assert known_sizes(sizes, int(sizes.sum())) == sizes.tolist()


@pytest.mark.parametrize("kept", [[], [0], [1, 2, 6], list(range(7))])
def test_positions_of_a_known_number_are_those_that_are_looked_for(kept):
    keep = torch.zeros(7, dtype=torch.bool)
    keep[kept] = True
    assert kept_positions(keep).tolist() == kept_positions(keep, len(kept)).tolist() == kept
