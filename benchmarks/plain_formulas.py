"""Formulas as a paper's code writes them for one bag, on the weights of ours: what one-bag paths are compared with."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def plain_mask(probs: Tensor, threshold: float) -> Tensor:
    """Instances (N,) of a positive bag that mining keeps; the hardest one where all lie above the threshold."""
    keep = probs <= threshold
    if not keep.any():
        keep[probs.argmin()] = True
    return keep


def plain_dsmil(model: Any, features: Tensor, label: Tensor) -> Tensor:
    """Loss of binli123/dsmil-wsi on one bag (N, D): both streams, each half."""
    classes = model.scorer(features)
    _, order = torch.sort(classes, 0, descending=True)
    critical = torch.index_select(features, 0, order[0])
    queries, wanted = model.query(features), model.query(critical)
    attention = F.softmax(torch.mm(queries, wanted.t()) / math.sqrt(queries.shape[1]), 0)
    embedding = torch.mm(attention.t(), model.value(features))
    bag = model.classifier(embedding[None]).view(1, -1)
    largest, _ = torch.max(classes, 0)
    return 0.5 * F.cross_entropy(bag, label) + 0.5 * F.cross_entropy(largest.view(1, -1), label)
