"""Losses of WENO's student (Qu et al., NeurIPS 2022, arXiv 2210.03664): cross-entropy against soft labels.

student_loss(logits, attention_pseudo_labels(scores, bag_labels, low, high))
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def student_loss(logits: Tensor, pseudo_labels: Tensor, negative_weight: float = 0.5) -> Tensor:
    """Cross-entropy against soft labels, Eq. 15: -mean[w (1 - y) log q0 + (1 - w) y log q1], q = softmax(logits).

    Args:
        logits: (M, 2) of the student.
        pseudo_labels: (M,) y in [0, 1].
        negative_weight: w in (0, 1); 0.5 is half of Eq. 15, the released code uses 0.1 or 0.2.
    """
    margin = logits[:, 1] - logits[:, 0]
    negative = negative_weight * (1 - pseudo_labels) * F.softplus(margin)
    positive = (1 - negative_weight) * pseudo_labels * F.softplus(-margin)
    return (negative + positive).mean()


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
