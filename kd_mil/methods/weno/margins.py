"""What WENO's teacher and student say about each instance by itself: log-odds, comparable across bags.

margins = instance_margins(method, aggregator, student_head, bag_indices)
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from kd_mil.data.batches import BagBatch
from kd_mil.methods.base.bag_method import BagMethod
from kd_mil.methods.base.instance_scores import owners_of_instances, scores_of_instances
from kd_mil.methods.base.readings import bag_of_one_logits
from kd_mil.models.aggregators.pooling import positive_margin


class Margins(NamedTuple):
    """Log-odds of M instances, complete and equal on all ranks."""

    teacher: Tensor
    """(M,) of each instance as a bag of one."""
    student: Tensor
    """(M,)."""
    owners: Tensor
    """(M,) int64 bag of each instance."""


def instance_margins(method: BagMethod, aggregator: nn.Module, head: nn.Module, bag_indices: Tensor) -> Margins:
    """Margins of all instances of the given bags, bag after bag, in evaluation mode.

    Args:
        method: in training; it encodes the instances.
        aggregator, head: teacher and student on what it encodes.
        bag_indices: (B,) int64.
    """

    def margins(bags: BagBatch) -> Tensor:
        encoded = method.encode(bags.instances)
        teacher = positive_margin(bag_of_one_logits(aggregator, encoded[0]))
        return torch.stack([teacher, positive_margin(head(encoded[-1]))], 1)

    teacher, student = scores_of_instances(method, bag_indices, margins).unbind(1)
    return Margins(teacher, student, owners_of_instances(method, bag_indices))
