"""Instance labels by optimal transport: SeLa-MIL (arXiv 2408.04813), its two-class problem solved in closed form.

labels = keep_winners(transport_labels(scores, mass=0.2), scores, owners)
"""

import math

import torch
from torch import Tensor

BISECTIONS = 60
"""Halvings of an interval that starts about as wide as the scores: the rest is below float64."""


def transport_labels(scores: Tensor, mass: float, sharpness: float = 1.0) -> Tensor:
    """Soft labels with a given mean, in the order of the scores.

    Entropic optimal transport of instances to two classes, each instance with equal mass and the classes with
    `1 - mass` and `mass`, has one unknown: q = sigmoid(sharpness * score + b), with b such that mean(q) = mass.
    Sinkhorn-Knopp converges to the same.

    Args:
        scores: (N,) log-odds of the instances.
        mass: share of positive instances, in (0, 1).
        sharpness: inverse of the entropy's weight.

    Returns:
        (N,) in [0, 1], of the dtype of the scores.
    """
    z = sharpness * scores.double()
    low, high = -z.max() - 50, -z.min() + 50
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        above = torch.sigmoid(z + middle).mean() > mass
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return torch.sigmoid(z + (low + high) / 2).to(scores.dtype)


def keep_winners(labels: Tensor, scores: Tensor, owners: Tensor) -> Tensor:
    """The labels, with 1 for the highest score of each bag: a positive bag holds at least one positive instance.

    Args:
        labels: (N,) soft labels of instances of positive bags.
        scores: (N,) that ranked them.
        owners: (N,) int64 bag of each.
    """
    highest = scores.new_full((int(owners.max()) + 1,), -math.inf).scatter_reduce(0, owners, scores, "amax")
    return labels.masked_fill(scores >= highest[owners], 1.0)


def standardised(scores: Tensor, reference: Tensor) -> Tensor:
    """Scores minus the mean of the reference scores, by their standard deviation."""
    return (scores - reference.mean()) / reference.std().clamp_min(1e-6)


def positive_share(unlabelled: Tensor, negative: Tensor, delta: float = 0.1, gamma: float = 0.01) -> float:
    """Share of positives among unlabelled instances, by best bin estimation (Garg et al. 2021, arXiv 2111.00980).

    Below the best threshold t the unlabelled instances are almost all negative, so the share of negatives is about
    F_u(t) / F_n(t) with the distribution functions F of the two samples; t minimises an upper bound of that.

    Args:
        unlabelled: (U,) scores of a mixture of positives and negatives.
        negative: (V,) scores of negatives.
        delta: probability that the bound of Dvoretzky, Kiefer and Wolfowitz fails.
        gamma: weight of the bound's width beyond 1.

    Returns:
        The share; where the samples contradict the assumption it can be negative.
    """
    unlabelled, negative = unlabelled.sort().values, negative.sort().values
    thresholds = torch.cat([unlabelled, negative])
    below_u = torch.searchsorted(unlabelled, thresholds, right=True).double() / len(unlabelled)
    below_n = torch.searchsorted(negative, thresholds, right=True).double() / len(negative)
    width = sum(math.sqrt(math.log(4 / delta) / (2 * len(sample))) for sample in (unlabelled, negative))
    known = below_n > 0
    below_u, below_n = below_u[known], below_n[known]
    best = ((below_u + (1 + gamma) * width) / below_n).argmin()
    return float(1 - below_u[best] / below_n[best])
