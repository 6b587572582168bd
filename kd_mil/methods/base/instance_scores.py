"""Scores of whole parts of the data set in the middle of training, for labels that are made once an epoch.

scores = scores_of_instances(method, bag_indices, lambda bags: margins(bags))
"""

from collections.abc import Callable

import torch
from torch import Tensor

from kd_mil.core.machine.distributed import all_reduce, world_size
from kd_mil.data.batches import BagBatch
from kd_mil.methods.base.bag_method import BagMethod
from kd_mil.methods.base.weight_average import evaluating


def scores_of_instances(method: BagMethod, bag_indices: Tensor, score: Callable[[BagBatch], Tensor]) -> Tensor:
    """Scores (M, K) of all instances of the given bags, bag after bag, complete and equal on all ranks.

    The method is in evaluation mode meanwhile. Each rank reads its share of the bags, of fewer bags than ranks all;
    nothing random is drawn.

    Args:
        method: in training.
        bag_indices: (B,) int64.
        score: of the instances of a batch, (N, K).
    """
    data = method.trainer.datamodule  # type: ignore[attr-defined]
    positions = data.bags.instances_of(bag_indices)
    place = torch.full((len(data.bags.bag_of_instance),), -1)
    place[positions] = torch.arange(len(positions))
    rows, scores, dealt = [], [], len(bag_indices) >= world_size()
    with evaluating(method):
        for bags in data.whole_bags(bag_indices, dealt=dealt):
            scores.append(score(method.trainer.strategy.batch_to_device(bags)))
            rows.append(place[bags.instance_ids.cpu()])
    known = torch.zeros(len(positions), scores[0].shape[1], device=method.device)
    known[torch.cat(rows).to(method.device)] = torch.cat(scores).to(known)
    return all_reduce(known, "sum") if dealt else known


def owners_of_instances(method: BagMethod, bag_indices: Tensor) -> Tensor:
    """Bag (M,) int64 of each of those instances."""
    bags = method.trainer.datamodule.bags  # type: ignore[attr-defined]
    owners: Tensor = bags.bag_of_instance[bags.instances_of(bag_indices)]
    return owners.to(method.device, torch.long)
