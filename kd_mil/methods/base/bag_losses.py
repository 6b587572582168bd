"""Losses of bag and instance labels, with the two streams of DSMIL (Li et al., CVPR 2021, arXiv 2011.08939).

bag_loss(output.bag_logits, labels, critical_logits(output, sizes))
"""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor


class BagTargets(NamedTuple):
    """How the labels of bags are learned from."""

    class_weights: Tensor | None = None
    """(C,) float32 by which the loss of a bag of each class is multiplied; None = 1."""
    label_smoothing: float = 0.0
    """Share of the label in [0, 1) that goes to all classes alike (Szegedy et al., CVPR 2016)."""


PLAIN = BagTargets()
"""Labels as they are."""


def bag_cross_entropy(logits: Tensor, labels: Tensor, targets: BagTargets = PLAIN) -> Tensor:
    """Cross-entropy (B,) of bags with logits (B, C) under labels (B,), smoothed and weighted.

    A weight multiplies the loss of its bag, whatever else is in the batch: PyTorch's own weighted mean would divide by
    the weights again, and so do nothing to a batch of one bag.
    """
    losses = F.cross_entropy(logits, labels, reduction="none", label_smoothing=targets.label_smoothing)
    return losses if targets.class_weights is None else losses * targets.class_weights.to(losses)[labels]


def mean_cross_entropy(logits: Tensor, labels: Tensor, targets: BagTargets = PLAIN) -> Tensor:
    """The mean of `bag_cross_entropy`; without weights PyTorch's own, to the last bit."""
    if targets.class_weights is None:
        return F.cross_entropy(logits, labels, label_smoothing=targets.label_smoothing)
    return bag_cross_entropy(logits, labels, targets).mean()


def binary_cross_entropy(margins: Tensor, labels: Tensor, bags: Tensor, targets: BagTargets = PLAIN) -> Tensor:
    """Mean cross-entropy of log-odds (M,) of bags, or of instances that weigh as their bags do.

    Args:
        margins: (M,).
        labels: (M,) float in [0, 1], probability of the positive class.
        bags: (M,) int64, label of the bag of each, which says how much it weighs.
        targets: class weights and smoothing.
    """
    if targets.label_smoothing:
        labels = (1 - targets.label_smoothing) * labels + targets.label_smoothing / 2
    weights = None if targets.class_weights is None else targets.class_weights.to(margins)[bags]
    return F.binary_cross_entropy_with_logits(margins, labels, weights)


def bag_loss(
    bag_logits: Tensor,
    labels: Tensor,
    critical_logits: Tensor | None = None,
    instance_stream_weight: float = 0.5,
    targets: BagTargets = PLAIN,
) -> Tensor:
    """Cross-entropy of the bag label: WENO Eq. 12; with an instance stream the two-stream loss of DSMIL.

    Args:
        bag_logits: (B, C).
        labels: (B,) int64.
        critical_logits: (B, C) logits of the highest-scoring instance of each bag, None without an instance stream.
        instance_stream_weight: share of the instance stream in [0, 1]; DSMIL and the released WENO use 0.5.
        targets: class weights and smoothing, of both streams.
    """
    loss = mean_cross_entropy(bag_logits, labels, targets)
    if critical_logits is None:
        return loss
    critical = mean_cross_entropy(critical_logits, labels, targets)
    return (1 - instance_stream_weight) * loss + instance_stream_weight * critical


def labelled_instance_loss(logits: Tensor, instance_labels: Tensor) -> Tensor:
    """Cross-entropy over the instances whose label is known (>= 0); 0 where none is, so that no rank skips a backward.

    Args:
        logits: (M, C).
        instance_labels: (M,) int64, -1 = unknown.
    """
    known = (instance_labels >= 0).sum().clamp_min(1)
    return F.cross_entropy(logits, instance_labels, ignore_index=-1, reduction="sum") / known
