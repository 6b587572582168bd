"""Losses on pixels that several methods share: soft Dice (Milletari et al. 2016, arXiv 1606.04797) and cross-entropy.

soft_dice(logits.sigmoid(), masks).mean() + cross_entropy_of_logits(logits, masks).mean()
"""

import torch.nn.functional as F
from torch import Tensor

SMOOTH = 1.0


DICE_EPSILON = 1e-7


def soft_dice(probs: Tensor, targets: Tensor) -> Tensor:
    """1 - (2 sum(p t) + 1) / (sum(p) + sum(t) + 1), the soft Dice loss (B,) of each image; both maps in [0, 1]."""
    probs, targets = probs.float().flatten(1), targets.float().flatten(1)
    overlap = 2 * (probs * targets).sum(1) + SMOOTH
    return 1 - overlap / (probs.sum(1) + targets.sum(1) + SMOOTH + DICE_EPSILON)


def cross_entropy_of_logits(logits: Tensor, targets: Tensor) -> Tensor:
    """-t log sigmoid(z) - (1 - t) log(1 - sigmoid(z)), element by element; also under autocast."""
    logits = logits.float()
    return targets * F.softplus(-logits) + (1 - targets) * F.softplus(logits)
