"""Operating points, chosen on validation bags only."""

import numpy as np
import torch
from sklearn.metrics import roc_curve
from torch import Tensor


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
