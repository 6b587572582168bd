"""Losses of bag and instance labels, with the two streams of DSMIL (Li et al., CVPR 2021, arXiv 2011.08939).

bag_loss(output.bag_logits, labels, critical_logits(output, sizes))
"""

import torch.nn.functional as F
from torch import Tensor


def bag_loss(
    bag_logits: Tensor, labels: Tensor, critical_logits: Tensor | None = None, instance_stream_weight: float = 0.5
) -> Tensor:
    """Cross-entropy of the bag label: WENO Eq. 12; with an instance stream the two-stream loss of DSMIL.

    Args:
        bag_logits: (B, C).
        labels: (B,) int64.
        critical_logits: (B, C) logits of the highest-scoring instance of each bag, None without an instance stream.
        instance_stream_weight: share of the instance stream in [0, 1]; DSMIL and the released WENO use 0.5.
    """
    loss = F.cross_entropy(bag_logits, labels)
    if critical_logits is None:
        return loss
    return (1 - instance_stream_weight) * loss + instance_stream_weight * F.cross_entropy(critical_logits, labels)


def labelled_instance_loss(logits: Tensor, instance_labels: Tensor) -> Tensor:
    """Cross-entropy over the instances whose label is known (>= 0); 0 where none is, so that no rank skips a backward.

    Args:
        logits: (M, C).
        instance_labels: (M,) int64, -1 = unknown.
    """
    known = (instance_labels >= 0).sum().clamp_min(1)
    return F.cross_entropy(logits, instance_labels, ignore_index=-1, reduction="sum") / known
