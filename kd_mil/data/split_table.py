"""What identifies a data set and its split: a row for each bag, and one hash."""

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor

from kd_mil.data.bags import Bags, BagSplits
from kd_mil.data.splits import PARTS


def split_table(splits: BagSplits, content: Callable[[Bags, int], str] | None = None) -> list[dict[str, str]]:
    """Rows `bag_id, case_id, label, split, content` in the order of the bags.

    `label` is the name of the class, `content` a hash of the instances, by `bag_content` where no other way is given.
    """
    content = content or bag_content
    bags = splits.bags
    rows = {
        bag: {
            "bag_id": bags.bag_ids[bag],
            "case_id": bags.bag_ids[bag] if bags.case_ids is None else bags.case_ids[bag],
            "label": bags.class_names[int(bags.labels[bag])],
            "split": part,
            "content": content(bags, bag),
        }
        for part in PARTS
        for bag in getattr(splits, part).tolist()
    }
    return [rows[bag] for bag in sorted(rows)]


def bag_content(bags: Bags, bag: int) -> str:
    """12 hex digits of a hash of a bag's instances and their labels.

    Of instances that stay in files the first and the last one are read: enough to tell another slide or encoder, and
    little to read.
    """
    start, size = int(bags.starts[bag]), int(bags.sizes[bag])
    if isinstance(bags.instances, Tensor):
        instances = bags.instances[start : start + size].cpu()
    else:
        instances = bags.instances[torch.tensor([start, start + size - 1])]
    digest = hashlib.blake2b(str(tuple(instances.shape)).encode(), digest_size=6)
    for tensor in (bags.instance_labels[start : start + size].long(), instances):
        digest.update(tensor.detach().contiguous().numpy().data)
    return digest.hexdigest()


def bags_fingerprint(splits: BagSplits) -> str:
    """Hash of labels, sizes, ids and split, and of the instances where they are in memory."""
    bags = splits.bags
    digest = hashlib.sha256("\n".join(bags.bag_ids).encode())
    tensors = [bags.sizes, bags.labels, bags.instance_labels.long(), *splits[1:]]
    tensors += [bags.instances] if isinstance(bags.instances, torch.Tensor) else []
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()[:16]
