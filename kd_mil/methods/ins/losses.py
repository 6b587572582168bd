"""Contrast of INS (arXiv 2307.02249), of instances before and after they have classes.

loss = binary_cross_entropy(margins, labels, bag_labels) + 0.5 * class_contrast(anchors, classes, others, other_classes)
"""

import torch
from torch import Tensor


def instance_contrast(queries: Tensor, keys: Tensor, others: Tensor, temperature: float = 0.07) -> Tensor:
    """InfoNCE: each instance is its own class, which another view of it has and the others have not.

    Args:
        queries: (M, E) of unit length.
        keys: (M, E) of the same instances in the other view.
        others: (Q, E) of other instances; without any the loss is 0.
        temperature: of the similarities.
    """
    own = (queries * keys).sum(1, keepdim=True)
    logits = torch.cat([own, queries @ others.T], 1) / temperature
    return -logits.log_softmax(1)[:, 0].mean()


def class_contrast(
    anchors: Tensor, anchor_classes: Tensor, others: Tensor, other_classes: Tensor, temperature: float = 0.07
) -> Tensor:
    """Supervised contrast (Khosla et al. 2020, arXiv 2004.11362): anchors attract all that is of their class.

    The mean over the anchors i of -1/|P(i)| sum_{p in P(i)} log softmax(s_i / t)_p, in which s_i are the similarities
    of anchor i with all anchors and others but itself, and P(i) those of its class.

    Args:
        anchors: (M, E) of unit length.
        anchor_classes: (M,).
        others: (Q, E), Q >= 1.
        other_classes: (Q,).
        temperature: t.

    Returns:
        (); an anchor without any of its class counts as 0.
    """
    everything, classes = torch.cat([anchors, others]), torch.cat([anchor_classes, other_classes])
    itself = torch.eye(len(anchors), len(everything), dtype=torch.bool, device=anchors.device)
    logits = (anchors @ everything.T / temperature).masked_fill(itself, float("-inf"))
    log_probs = logits.log_softmax(1).masked_fill(itself, 0.0)
    alike = (anchor_classes[:, None] == classes) & ~itself
    return -((log_probs * alike).sum(1) / alike.sum(1).clamp_min(1)).mean()
