"""ACMIL: attention-challenging multiple instance learning (Zhang et al., ECCV 2024, arXiv 2311.07125).

ACMIL(in_features=512, branches=5)(features, sizes).bag_logits
"""

import math
from collections.abc import Sequence
from functools import partial
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_mil.core.checks import at_least, share
from kd_mil.models.aggregators.abmil import AttentionNetwork
from kd_mil.models.heads import LogitLayer, hidden_layers
from kd_mil.models.masking import random_of_top
from kd_mil.models.outputs import MILOutput
from kd_mil.models.segments import (
    segment_ids,
    segment_logsumexp,
    segment_softmax,
    segment_sum,
    segment_weighted_sum,
)

MASKED = -1e9


class ACMIL(nn.Module):
    """Several gated attention branches (MBA), kept apart, whose favourite instances are hidden at random (STKIM).

    In training every branch loses, before its softmax, a random part of its most attended instances. Each branch has
    a classifier of its own; the bag's reads the mean of their attention. The attention reported is that mean without
    masks, and its logits are log(n * mean attention), 0 for an instance that attends like 1/n: they depend on the bag.

    Args:
        in_features: D, width of the instance features.
        num_classes: C.
        hidden: widths of the layers before the attention; the authors' code halves 1024 features.
        attention_dim: width of the attention network.
        branches: K, number of attention branches.
        masked_top: from how many of the most attended instances of a branch some are hidden.
        mask_share: which part of these is hidden; the authors find 0 better for some features.

    Raises:
        UserError: fewer than 1 branch, a negative `masked_top`, or a share outside [0, 1].
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int = 2,
        hidden: Sequence[int] = (512,),
        attention_dim: int = 128,
        branches: int = 5,
        masked_top: int = 10,
        mask_share: float = 0.6,
    ) -> None:
        super().__init__()
        at_least("aggregator.branches", branches, 1)
        at_least("aggregator.masked_top", masked_top, 0)
        share("aggregator.mask_share", mask_share)
        width = hidden[-1] if hidden else in_features
        self.masked_top, self.mask_share = masked_top, mask_share
        self.hidden = hidden_layers(in_features, hidden)
        self.attention = AttentionNetwork(width, attention_dim, True, branches)
        self.branch_classifiers = nn.ModuleList(LogitLayer(width, num_classes) for _ in range(branches))
        self.classifier = LogitLayer(width, num_classes)

    def forward(self, features: Tensor, sizes: Tensor) -> MILOutput:
        """Pool features (N, D) of bags with sizes (B,)."""
        hidden = self.hidden(features)
        branches = self.attention.branch_logits(hidden)
        challenged = torch.stack([segment_softmax(self.hide(column, sizes), sizes) for column in branches.unbind(1)], 1)
        embeddings = segment_weighted_sum(hidden, challenged, sizes)
        embedding = embeddings.mean(1)
        attention_logits = mean_attention_logits(branches, sizes)
        return MILOutput(
            self.classifier(embedding),
            attention_logits,
            segment_softmax(attention_logits, sizes),
            embedding,
            auxiliary_loss=partial(self.branch_loss, embeddings, challenged, sizes),
        )

    def hide(self, logits: Tensor, sizes: Tensor) -> Tensor:
        """Logits (N,) of one branch in which, while training, a random part of the highest is masked (STKIM)."""
        if not self.training or self.masked_top == 0 or self.mask_share == 0:
            return logits
        top = sizes.clamp_max(self.masked_top)
        return logits.masked_fill(random_of_top(logits, sizes, top, (top.double() * self.mask_share).long()), MASKED)

    def branch_loss(self, embeddings: Tensor, attention: Tensor, sizes: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of the branches (B, K, E), and how alike their attention (N, K) is (mean cosine)."""
        pairs = zip(self.branch_classifiers, embeddings.unbind(1), strict=True)
        loss = torch.stack([F.cross_entropy(classifier(pooled), labels) for classifier, pooled in pairs]).mean()
        if attention.shape[1] == 1:
            return loss
        return loss + branch_similarity(attention, sizes)


def branch_similarity(attention: Tensor, sizes: Tensor) -> Tensor:
    """Mean cosine between the attention (N, K) of two branches, over pairs of branches and over bags."""
    norms = segment_sum(attention.square(), sizes).sqrt().clamp_min(1e-8)
    scaled = attention / norms[segment_ids(sizes, len(attention))]
    pairs = list(combinations(range(attention.shape[1]), 2))
    products = torch.stack([scaled[:, one] * scaled[:, other] for one, other in pairs], 1)
    return products.sum() / (len(pairs) * len(sizes))


def mean_attention_logits(branches: Tensor, sizes: Tensor) -> Tensor:
    """log(n * mean over the K branches of the attention), (N,) in bags of n, from branch logits (N, K)."""
    owner = segment_ids(sizes, branches.shape[0])
    logs = [column - segment_logsumexp(column, sizes)[owner] for column in branches.unbind(1)]
    return torch.stack(logs, 1).logsumexp(1) - math.log(len(logs)) + sizes.to(branches.dtype).log()[owner]
