"""How well scores rank instances: pooled over all bags, within the positive bags, and bag by bag.

A score that is relative to its bag, or that follows the bag's probability, ranks well in one of these and badly in
another: the three together say whether instances or their bags are told apart.
"""

import math

import torch
from torch import Tensor


def ranking_scores(scores: Tensor, positive: Tensor, bags: Tensor, in_positive_bag: Tensor) -> dict[str, float]:
    """Areas under the ROC curve and average precisions of instances with a known label, from one sort.

    `auroc` and `ap` pool all instances, `_within` those of positive bags; `_per_bag` is the mean over the positive bags
    that hold both classes. NaN where undefined.

    Args:
        scores: (N,) the higher the more positive.
        positive: (N,) bool, the truth.
        bags: (N,) int64 bag of each instance.
        in_positive_bag: (N,) bool.
    """
    order = scores.argsort(descending=True)
    auroc, ap = areas(scores[order], positive[order])
    found = {"auroc": float(auroc), "ap": float(ap)}
    order = order[in_positive_bag[order]]
    auroc, ap = areas(scores[order], positive[order])
    found |= {"auroc_within": float(auroc), "ap_within": float(ap)}
    order = order[bags[order].argsort(stable=True)]
    _, groups = bags[order].unique_consecutive(return_inverse=True)
    auroc, ap = grouped_areas(scores[order], positive[order], groups)
    return found | {"auroc_per_bag": _defined_mean(auroc), "ap_per_bag": _defined_mean(ap)}


def areas_of(scores: Tensor, positive: Tensor) -> tuple[Tensor, Tensor]:
    """As `areas`, of scores (N,) in any order: one sort, float64 throughout."""
    order = scores.argsort(descending=True)
    return areas(scores[order], positive[order])


def areas(scores: Tensor, positive: Tensor) -> tuple[Tensor, Tensor]:
    """AUROC and average precision of descending scores (N,) and the truth (N,) bool; NaN with one class alone."""
    if not len(scores):
        return torch.tensor(math.nan), torch.tensor(math.nan)
    auroc, ap = grouped_areas(scores, positive, torch.zeros_like(positive, dtype=torch.long))
    return auroc[0], ap[0]


def grouped_areas(scores: Tensor, positive: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
    """AUROC and average precision of each group, (G,) float64; equal scores count half, and enter precision at once.

    Args:
        scores: (N,) descending within each group.
        positive: (N,) bool.
        groups: (N,) int64 ascending from 0, none left out.
    """
    begins = torch.ones_like(positive)
    begins[1:] = (scores[1:] != scores[:-1]) | (groups[1:] != groups[:-1])
    step, group = begins.cumsum(0) - 1, groups[begins]  # a step of the curve: equal scores of one group
    steps, count = len(group), int(groups[-1]) + 1 if len(groups) else 0
    up = torch.bincount(step, positive.double(), minlength=steps)
    down = torch.bincount(step, (~positive).double(), minlength=steps)
    ups, downs = (torch.bincount(group, column, minlength=count) for column in (up, down))
    up_before = up.cumsum(0) - (ups.cumsum(0) - ups)[group] - up  # in the group, above this step
    down_before = down.cumsum(0) - (downs.cumsum(0) - downs)[group] - down
    precision = (up_before + up) / (up_before + up + down_before + down)
    auroc = torch.bincount(group, down * (up_before + up / 2), minlength=count) / (ups * downs)
    ap = torch.bincount(group, up * precision, minlength=count) / ups
    undefined = (ups == 0) | (downs == 0)
    return auroc.masked_fill(undefined, math.nan), ap.masked_fill(undefined, math.nan)


def _defined_mean(values: Tensor) -> float:
    return float(values[values.isfinite()].mean()) if values.isfinite().any() else math.nan
