"""WENO's bag builder: labelled instances cut into bags with an exact share of positives.

Qu et al., NeurIPS 2022, Sec. 4.1. The counts follow the authors' code, its rounding included: the published bag AUCs
are multiples of 1 / (positive x negative test bags) of exactly these counts. The tests hold the table.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from kd_mil.core.checks import share
from kd_mil.core.errors import UserError


class BagPlan(NamedTuple):
    """Which instances form which bag."""

    instances: Tensor
    """(B, bag_length) int64 positions; no position occurs twice."""
    labels: Tensor
    """(B,) int64, positive bags first."""


def build_bags(
    is_positive: Tensor, bag_length: int, positive_ratio: float, positive_bag_ratio: float = 0.5, *, seed: int = 0
) -> BagPlan:
    """Deal instances into bags without replacement; what is left over is dropped.

    A positive bag holds exactly m = int(bag_length * positive_ratio) positive instances in random order among negative
    ones; a negative bag holds negative instances only.

    Args:
        is_positive: (N,) bool.
        bag_length: instances per bag.
        positive_ratio: share of positive instances in a positive bag, in (0, 1].
        positive_bag_ratio: share of positive bags, in (0, 1).
        seed: of the order in which instances are dealt.

    Raises:
        UserError: a ratio out of range, or instances too few for a bag of either label.
    """
    total_positive = int(is_positive.sum())
    num_positive, num_negative = count_bags(
        total_positive, len(is_positive) - total_positive, bag_length, positive_ratio, positive_bag_ratio
    )
    generator = torch.Generator().manual_seed(seed)
    positives = _shuffled(is_positive.nonzero().flatten(), generator)
    negatives = _shuffled((~is_positive).nonzero().flatten(), generator)
    within = int(bag_length * positive_ratio)
    taken = num_positive * (bag_length - within)
    mixed = torch.cat(
        [
            positives[: num_positive * within].view(num_positive, within),
            negatives[:taken].view(num_positive, bag_length - within),
        ],
        dim=1,
    )
    order = torch.rand(mixed.shape, generator=generator).argsort(dim=1)
    pure = negatives[taken : taken + num_negative * bag_length].view(num_negative, bag_length)
    labels = torch.arange(num_positive + num_negative) < num_positive
    return BagPlan(torch.cat([mixed.gather(1, order), pure]), labels.long())


def count_bags(
    total_positive: int, total_negative: int, bag_length: int, positive_ratio: float, positive_bag_ratio: float = 0.5
) -> tuple[int, int]:
    """Number of positive and negative bags that the instances suffice for; arguments as in `build_bags`.

    `int` truncates where the authors' code does: rounding costs one positive bag at a ratio of 0.05.

    Raises:
        UserError: a ratio out of range, or no bag of one label.
    """
    share("positive_ratio", positive_ratio, zero=False)
    share("positive_bag_ratio", positive_bag_ratio, zero=False, one=False)
    ratio = positive_ratio
    within = int(bag_length * ratio)
    if within < 1:
        raise UserError(
            f"positive_ratio={ratio} of bag_length={bag_length} is less than one instance: raise one of them"
        )
    negatives_within = (1 - ratio) / ratio  # per positive instance
    negatives_beside = (1 - positive_bag_ratio) / (ratio * positive_bag_ratio)
    usable = int(total_negative // (negatives_beside + negatives_within))
    usable = min(usable, total_positive) // within * within
    num_positive, num_negative = usable // within, int(usable * negatives_beside) // bag_length
    if within < bag_length:
        num_positive = min(num_positive, int(usable * negatives_within) // (bag_length - within))
    if num_positive == 0 or num_negative == 0:
        raise UserError(
            f"{total_positive} positive and {total_negative} negative instances give {num_positive} positive and "
            f"{num_negative} negative bags at bag_length={bag_length}, positive_ratio={ratio}: both are needed, "
            "shorten the bags or change the ratio"
        )
    return num_positive, num_negative


def limit_bags(plan: BagPlan, max_bags: int | None) -> BagPlan:
    """The first bags of each label, in the plan's proportion and at most `max_bags` in all; None keeps every bag.

    A smaller limit keeps a subset of what a larger one keeps.

    Raises:
        UserError: a limit below one bag of each label.
    """
    if max_bags is None or max_bags >= len(plan.labels):
        return plan
    if max_bags < 2:
        raise UserError(f"a limit of {max_bags} bags: at least 2, one of each label")
    num_positive = int(plan.labels.sum())
    kept = min(max(round(max_bags * num_positive / len(plan.labels)), 1), max_bags - 1)
    chosen = torch.cat([torch.arange(kept), num_positive + torch.arange(max_bags - kept)])
    return BagPlan(plan.instances[chosen], plan.labels[chosen])


def _shuffled(positions: Tensor, generator: torch.Generator) -> Tensor:
    return positions[torch.randperm(len(positions), generator=generator)]
