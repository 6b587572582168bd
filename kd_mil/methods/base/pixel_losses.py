"""Losses on pixels that several methods share: soft Dice (Milletari et al. 2016, arXiv 1606.04797) and cross-entropy.

soft_dice(logits.sigmoid(), masks).mean() + cross_entropy_of_logits(logits, masks).mean()
"""

import torch
import torch.nn.functional as F
from torch import Tensor

SMOOTH = 1.0


DICE_EPSILON = 1e-7
LEAST_PROB = 1e-6


def soft_dice(probs: Tensor, targets: Tensor) -> Tensor:
    """1 - (2 sum(p t) + 1) / (sum(p) + sum(t) + 1), the soft Dice loss (B,) of each image; both maps in [0, 1]."""
    probs, targets = probs.float().flatten(1), targets.float().flatten(1)
    overlap = 2 * (probs * targets).sum(1) + SMOOTH
    return 1 - overlap / (probs.sum(1) + targets.sum(1) + SMOOTH + DICE_EPSILON)


def cross_entropy_of_logits(logits: Tensor, targets: Tensor) -> Tensor:
    """-t log sigmoid(z) - (1 - t) log(1 - sigmoid(z)), element by element; also under autocast."""
    logits = logits.float()
    return targets * F.softplus(-logits) + (1 - targets) * F.softplus(logits)


def cross_entropy_of(probs: Tensor, targets: Tensor) -> Tensor:
    """-t log p - (1 - t) log(1 - p), element by element; p is kept 1e-6 away from 0 and 1."""
    probs = probs.float().clamp(LEAST_PROB, 1 - LEAST_PROB)
    return -(targets * probs.log() + (1 - targets) * torch.log1p(-probs))


def easy_weights(losses: Tensor, masks: Tensor) -> Tensor:
    """Online easy example mining (Li et al. 2022, arXiv 2206.06665): weights (B, P) of pixels by their losses (B, P).

    softmax(-loss) over the image, with mean 1; 1 throughout where the mask (B, P) holds one class alone.
    """
    weights = (-losses).softmax(1) * losses.shape[1]
    classes = masks >= 0.5
    mixed = classes.any(1) & ~classes.all(1)
    return torch.where(mixed[:, None], weights, 1.0)
