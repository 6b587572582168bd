"""Softmax, sums and maxima over the bags of a packed batch; the only place that knows how bags lie end to end.

`sizes` (B,) int64 counts the instances of each bag, all at least 1 and N in all. Nothing here loops over instances, and
on a GPU nothing waits for the device but `kept_positions` without a count, and `known_sizes` of several bags. One bag,
and bags of one, go shorter ways, in which sizes are no data: they can be exported, with a number of instances that
stays open (lengths are `shape[0]`; `len` would fix them). Values narrower than float32 are widened before anything is
summed.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

FEW_INSTANCES = 16
"""Mean bag size below which one gather over the batch beats one matrix product per bag (measured on a CPU)."""


def segment_ids(sizes: Tensor, total: int) -> Tensor:
    """Bag number (N,) of every instance; `total` = N spares a device synchronisation."""
    return per_instance(torch.arange(sizes.shape[0], device=sizes.device), sizes, total)


def bags_of_one(sizes: Tensor, total: int) -> bool:
    """Whether every bag is a single instance."""
    return sizes.shape[0] == total


def in_parts(values: Tensor, length: int) -> Sequence[Tensor]:
    """Values (N, ...) cut into consecutive parts of at most `length`; while N is open, as in an export, the whole."""
    return [values] if isinstance(values.shape[0], torch.SymInt) else values.split(length)


def per_instance(values: Tensor, sizes: Tensor, total: int) -> Tensor:
    """Values (B, ...) of bags, repeated for each of their instances: (N, ...), N = `total`."""
    if sizes.shape[0] == 1:
        return values.expand(total, *values.shape[1:])
    if bags_of_one(sizes, total):
        return values
    return values.repeat_interleave(sizes, 0, output_size=total)


def known_sizes(sizes: Tensor, total: int) -> list[int]:
    """Sizes (B,) as numbers; of one bag, and of bags of one, without waiting for the device."""
    if bags_of_one(sizes, total):
        return [1] * total
    return [total] if sizes.shape[0] == 1 else sizes.tolist()


def kept_positions(keep: Tensor, count: int | None = None) -> Tensor:
    """Ascending positions (K,) int64 of the instances that a mask (N,) keeps.

    `count` is K where the host knows it; without it the host waits for the device, in a step with mining or masking
    here alone.
    """
    return keep.nonzero().squeeze(1) if count is None else (~keep).argsort(stable=True)[:count]


def segment_sum(values: Tensor, sizes: Tensor) -> Tensor:
    """Sum over each bag of values (N,) -> (B,), or (N, E) -> (B, E)."""
    values = at_least_float32(values)
    if bags_of_one(sizes, values.shape[0]):
        return values
    if values.dim() == 1 and sizes.shape[0] == 1:
        return values.double().sum(0, keepdim=True).to(values.dtype)
    if values.dim() == 1:
        # in float64: a running float32 sum is off by 4e-5 after 50,000 values
        return torch.segment_reduce(values.double(), "sum", lengths=sizes, unsafe=True).to(values)
    return segment_weighted_sum(values, values.new_ones(values.shape[0]), sizes)


def segment_mean(values: Tensor, sizes: Tensor) -> Tensor:
    """Mean over each bag of values (N,) -> (B,), or (N, E) -> (B, E)."""
    sums = segment_sum(values, sizes)
    return sums / sizes.view(-1, *[1] * (sums.dim() - 1))


def segment_weighted_sum(values: Tensor, weights: Tensor, sizes: Tensor) -> Tensor:
    """Weighted sum over each bag of values (N, E): weights (N,) -> (B, E), class-wise weights (N, C) -> (B, C, E)."""
    values, weights = at_least_float32(values), at_least_float32(weights)
    classes = weights if weights.dim() == 2 else weights.unsqueeze(1)
    if bags_of_one(sizes, values.shape[0]):
        sums = classes.unsqueeze(2) * values.unsqueeze(1)
    else:
        sums = _weighted_sums(values, classes, sizes)
    return sums if weights.dim() == 2 else sums.squeeze(1)


def _weighted_sums(values: Tensor, classes: Tensor, sizes: Tensor) -> Tensor:
    """(B, C, E) of values (N, E) and weights (N, C), float32 at least; bags may be empty here."""
    if sizes.shape[0] == 1:
        sums = multiply(classes.t(), values).unsqueeze(0)
    elif not values.is_cuda and len(values) >= FEW_INSTANCES * len(sizes):
        # products add in blocks; a running float32 sum of 20,000 equal values is off by 3e-4 of it
        per_bag = zip(classes.split(sizes.tolist()), values.split(sizes.tolist()), strict=True)
        sums = torch.stack([multiply(weights_of_bag.t(), instances) for weights_of_bag, instances in per_bag])
    else:
        order, starts = torch.arange(len(values), device=values.device), sizes.cumsum(0) - sizes
        columns = [column.contiguous() for column in classes.unbind(1)]
        sums = torch.stack(
            [F.embedding_bag(order, values, starts, mode="sum", per_sample_weights=c) for c in columns], 1
        )
    return sums


def segment_weighted_sum_of_parts(parts: Sequence[Tensor], weights: Tensor, sizes: Tensor) -> Tensor:
    """As `segment_weighted_sum`, for values (N, E) cut into consecutive parts; bags may lie across the cuts."""
    if len(parts) == 1:
        return segment_weighted_sum(parts[0], weights, sizes)
    ends, start, sums = sizes.cumsum(0), 0, None
    for part, part_weights in zip(parts, weights.split([len(part) for part in parts]), strict=True):
        before, start = start, start + len(part)
        sizes_here = ends.clamp(before, start).diff(prepend=ends.new_full((1,), before))
        here = _weighted_sums(at_least_float32(part), at_least_float32(part_weights).unsqueeze(1), sizes_here)
        sums = here if sums is None else sums + here
    assert sums is not None
    return sums.squeeze(1)


def segment_dot(values: Tensor, queries: Tensor, sizes: Tensor) -> Tensor:
    """Dot products (N, C) of the instances (N, E) with the C queries (B, C, E) of their own bag."""
    values, queries = at_least_float32(values), at_least_float32(queries)
    if sizes.shape[0] == 1:
        return multiply(values, queries[0].t())
    total = values.shape[0]
    if values.is_cuda or bags_of_one(sizes, total) or total < FEW_INSTANCES * sizes.shape[0]:
        return torch.stack([(values * per_instance(q, sizes, total)).sum(1) for q in queries.unbind(1)], 1)
    per_bag = zip(values.split(sizes.tolist()), queries.transpose(1, 2).unbind(), strict=True)
    return torch.cat([multiply(instances, query) for instances, query in per_bag])


def segment_max(values: Tensor, sizes: Tensor) -> Tensor:
    """Largest value (B,) of each bag of values (N,); its gradient goes to the first instance that has it."""
    return values[segment_argmax(values, sizes)]


def segment_min(values: Tensor, sizes: Tensor) -> Tensor:
    """Smallest value (B,) of each bag of values (N,); its gradient goes to the first instance that has it."""
    return values[segment_argmax(-values, sizes)]


def segment_largest(values: Tensor, sizes: Tensor) -> Tensor:
    """As `segment_max`, of values without gradient: NaN where a bag has one."""
    if bags_of_one(sizes, values.shape[0]):
        return values
    if sizes.shape[0] == 1:
        return values.amax(0, keepdim=True)
    return torch.segment_reduce(values, "max", lengths=sizes, unsafe=True)


def segment_smallest(values: Tensor, sizes: Tensor) -> Tensor:
    """As `segment_min`, of values without gradient: NaN where a bag has one."""
    return values.amin(0, keepdim=True) if sizes.shape[0] == 1 else -segment_largest(-values, sizes)


def segment_argmax(values: Tensor, sizes: Tensor) -> Tensor:
    """Position int64 in [0, N) of the first largest value of each bag of values (N,) -> (B,), or (N, C) -> (B, C)."""
    values, total = values.detach(), values.shape[0]
    if sizes.shape[0] == 1:
        return values.argmax(0, keepdim=True)
    if values.dim() == 2:
        return torch.stack([segment_argmax(column, sizes) for column in values.unbind(1)], 1)
    if bags_of_one(sizes, total):
        return torch.arange(total, device=values.device)
    largest = per_instance(segment_largest(values, sizes), sizes, total)
    # not "== largest": with a NaN in the bag nothing is equal, and a position must come out all the same
    candidates = torch.where(values < largest, total, torch.arange(total, device=values.device))
    first = sizes.new_full((len(sizes),), total)
    return first.scatter_reduce(0, segment_ids(sizes, total), candidates, "amin")


def segment_ranks(values: Tensor, sizes: Tensor) -> Tensor:
    """Rank (N,) int64 of each of the values (N,) in its bag, 0 for the largest; equal ones in their order."""
    total = values.shape[0]
    positions = torch.arange(total, device=values.device)
    if bags_of_one(sizes, total):
        return torch.zeros_like(positions)
    by_value = values.detach().argsort(descending=True, stable=True)
    if sizes.shape[0] == 1:
        return torch.zeros_like(positions).scatter(0, by_value, positions)
    owner = segment_ids(sizes, total)
    by_bag = by_value[owner[by_value].argsort(stable=True)]
    ranks = torch.empty_like(owner)
    ranks[by_bag] = positions - (sizes.cumsum(0) - sizes)[owner]
    return ranks


def segment_logsumexp(values: Tensor, sizes: Tensor) -> Tensor:
    """Logarithm (B,) of the sum of exponentials over each bag of values (N,), stable at any size of the values."""
    values = at_least_float32(values)
    largest = segment_largest(values.detach(), sizes)
    shifted = values - per_instance(largest, sizes, values.shape[0])
    return segment_sum(shifted.exp(), sizes).log() + largest


def segment_softmax(logits: Tensor, sizes: Tensor) -> Tensor:
    """Softmax over each bag of logits (N,) or (N, C), in float32 at least, stable at any size of the logits."""
    logits = at_least_float32(logits)
    if sizes.shape[0] == 1 and logits.dim() == 1:
        return logits.softmax(0)
    if sizes.shape[0] == 1:
        return logits.t().softmax(1).t()  # along contiguous values, where sums are blocked and exact to 1e-6
    if logits.dim() == 2:
        return torch.stack([segment_softmax(column, sizes) for column in logits.unbind(1)], 1)
    total = logits.shape[0]
    largest = per_instance(segment_largest(logits.detach(), sizes), sizes, total)
    exponentials = (logits - largest).exp()
    return exponentials / per_instance(segment_sum(exponentials, sizes), sizes, total)


def at_least_float32(values: Tensor) -> Tensor:
    """The values, widened to float32 where they are float16 or bfloat16."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def multiply(left: Tensor, right: Tensor) -> Tensor:
    """Matrix product that autocast does not narrow."""
    with torch.autocast(left.device.type, enabled=False):
        return left @ right
