"""Operating points, chosen on the labels of validation bags only."""

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.metrics import roc_curve
from torch import Tensor

FALSE_POSITIVE_RATE = 0.05
"""Share of the instances of negative validation bags that may be called positive."""


def youden_threshold(probs: Tensor, labels: Tensor) -> float:
    """Probability at which sensitivity + specificity is largest, halfway to the next lower score.

    0.5 with one class alone, and where no threshold is better than chance.

    Args:
        probs: (B,) probability of the positive class.
        labels: (B,) int64 in {0, 1}.
    """
    if labels.unique().numel() < 2:
        return 0.5
    false_positive_rate, true_positive_rate, thresholds = roc_curve(labels.numpy(), probs.numpy())
    gain = true_positive_rate - false_positive_rate
    if gain.max() <= 0:  # roc_curve's own first threshold, infinity, would be the best
        return 0.5
    best = float(thresholds[np.argmax(gain)])
    below = probs[probs < best]
    return float((best + torch.max(below)) / 2) if below.numel() else best


def instance_threshold(
    probs: Tensor, in_positive_bag: Tensor, false_positive_rate: float = FALSE_POSITIVE_RATE
) -> float:
    """The lowest probability that at most a given share of the instances of negative bags reaches.

    All that bag labels say for certain of single instances is that those of negative bags are negative. Youden's index
    between instances of the two kinds of bags needs that negatives look alike in both, and a bag classifier sees to it
    that they do not: its threshold is far too low.

    Args:
        probs: (N,) probability of being positive, of the instances of validation bags.
        in_positive_bag: (N,) bool.
        false_positive_rate: the share, in [0, 1).

    Returns:
        The next number above the highest instance that must stay below; 0.5 with bags of one kind.
    """
    negative = probs[~in_positive_bag].sort(descending=True).values
    if len(negative) in (0, len(probs)):
        return 0.5
    highest = negative[int(false_positive_rate * len(negative))]
    return float(highest.nextafter(torch.full_like(highest, torch.inf)))


def decided(probs: Sequence[float], threshold: float) -> int:
    """Index of the class: by the threshold on the second of two, else the most probable."""
    return int(probs[1] >= threshold) if len(probs) == 2 else int(np.argmax(probs))


def decision_text(probs: Sequence[float], threshold: float, class_names: Sequence[str]) -> str:
    """`tumour (tumour 0.73, threshold 0.41)`; of more than two classes the one decided and its probability."""
    decision = class_names[decided(probs, threshold)]
    if len(probs) == 2:
        return f"{decision} ({class_names[1]} {probs[1]:.2f}, threshold {threshold:.2f})"
    return f"{decision} ({max(probs):.2f})"
