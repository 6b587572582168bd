"""WENO with several positive classes: an extension beyond the paper."""

import torch
import torch.nn.functional as F
from torch import Tensor


def class_targets(pseudo_labels: Tensor, bag_labels: Tensor, num_classes: int) -> Tensor:
    """Soft targets (M, C): y for the class of the instance's bag, 1 - y for the negative class, 0 for all others.

    Args:
        pseudo_labels: (M,) y in [0, 1], 0 for instances of negative bags; with two classes Eq. 13 of the paper.
        bag_labels: (M,) int64 in [0, C).
        num_classes: C.
    """
    targets = torch.zeros(len(bag_labels), num_classes, dtype=pseudo_labels.dtype, device=pseudo_labels.device)
    targets.scatter_(1, bag_labels[:, None], pseudo_labels[:, None])
    targets[:, 0] = 1 - pseudo_labels
    return targets


def class_student_loss(logits: Tensor, targets: Tensor, negative_weight: float = 0.5) -> Tensor:
    """Cross-entropy against soft targets (M, C), w for the negative class and 1 - w for the others: Eq. 15 at C = 2."""
    weights = torch.full_like(targets, 1 - negative_weight)
    weights[:, 0] = negative_weight
    return -(weights * targets * F.log_softmax(logits, 1)).sum(1).mean()
