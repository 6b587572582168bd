"""CLAM: clustering-constrained attention multiple instance learning (Lu et al., Nature Biomedical Engineering 2021).

doi 10.1038/s41551-020-00682-w

    CLAM(in_features=1024, branches="multi")(features, sizes).class_attention_logits  # (N, 2)
"""

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_mil.core.checks import at_least
from kd_mil.models.aggregators.abmil import AttentionNetwork
from kd_mil.models.heads import Dropout, LogitLayer, hidden_layers
from kd_mil.models.outputs import MILOutput, positive_logits
from kd_mil.models.segments import segment_ids, segment_ranks, segment_softmax, segment_weighted_sum


class CLAM(nn.Module):
    """Gated attention whose most and least attended instances are told apart by a classifier for each class.

    `single` (CLAM-SB) pools once; `multi` (CLAM-MB) has an attention branch, an embedding and a classifier for each
    class. The instance loss takes the k most attended instances of the bag's class as its positive examples and the k
    least attended as its negative ones. Defaults follow mahmoodlab/CLAM.

    Args:
        in_features: D, width of the instance features.
        num_classes: C.
        hidden: widths of the layers before the attention.
        attention_dim: width of the attention network.
        dropout: share of values set to 0 while training, after the hidden layers and within the attention network.
        branches: `single` (SB) or `multi` (MB).
        clustered: k, examples of either kind from a bag; at most half of a small bag.
        instance_weight: of the instance loss, next to 1 for the bag loss; the released 0.3 and 0.7 make 3/7.
        subtyping: classes exclude each other: what attends most to another class is a negative example of that class.

    Raises:
        UserError: `clustered` below 1, or a negative weight.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int = 2,
        hidden: Sequence[int] = (512,),
        attention_dim: int = 256,
        dropout: float = 0.25,
        branches: Literal["single", "multi"] = "single",
        clustered: int = 8,
        instance_weight: float = 3 / 7,
        subtyping: bool = False,
    ) -> None:
        super().__init__()
        at_least("aggregator.clustered", clustered, 1)
        at_least("aggregator.instance_weight", instance_weight, 0)
        width = hidden[-1] if hidden else in_features
        self.multi, self.clustered, self.subtyping = branches == "multi", clustered, subtyping
        self.instance_weight = instance_weight
        self.hidden = nn.Sequential(hidden_layers(in_features, hidden), Dropout(dropout))
        self.attention = AttentionNetwork(width, attention_dim, True, num_classes if self.multi else 1, dropout)
        self.classifier = LogitLayer(width, num_classes)
        self.instance_classifiers = nn.ModuleList(LogitLayer(width, 2) for _ in range(num_classes))

    def forward(self, features: Tensor, sizes: Tensor) -> MILOutput:
        """Pool features (N, D) of bags with sizes (B,)."""
        hidden = self.hidden(features)
        branches = self.attention.branch_logits(hidden)
        attention = segment_softmax(branches, sizes)
        embedding = segment_weighted_sum(hidden, attention, sizes)
        loss = partial(self.clustering_loss, hidden, branches.detach(), sizes)
        if not self.multi:
            [pooled] = embedding.unbind(1)
            return MILOutput(self.classifier(pooled), branches[:, 0], attention[:, 0], pooled, auxiliary_loss=loss)
        # the classifier of class c reads the embedding of class c
        logits = (embedding * self.classifier.weight).sum(2) + self.classifier.bias
        positive = positive_logits(branches)
        return MILOutput(
            logits,
            positive,
            segment_softmax(positive, sizes),
            embedding.flatten(1),
            class_attention_logits=branches,
            auxiliary_loss=loss,
        )

    def attention_logits(self, features: Tensor) -> Tensor:
        """Attention logits (N,) of any instances, in or out of bags."""
        branches = self.attention.branch_logits(self.hidden(features))
        return positive_logits(branches) if self.multi else branches[:, 0]

    def clustering_loss(self, hidden: Tensor, branches: Tensor, sizes: Tensor, labels: Tensor) -> Tensor:
        """Weighted instance loss of bags with labels (B,); a bag of one instance has none."""
        owner = segment_ids(sizes, len(hidden))
        count = (sizes // 2).clamp_max(self.clustered)[owner]
        total = hidden.new_zeros(())
        for number, classifier in enumerate(self.instance_classifiers):
            rank = segment_ranks(branches[:, number if self.multi else 0], sizes)
            top, bottom = rank < count, rank >= sizes[owner] - count
            own = labels[owner] == number
            chosen = (own & (top | bottom)) | (~own & top if self.subtyping else torch.zeros_like(own))
            # of all instances, with weight 0 for most: to pick some by a mask, the host would wait for a GPU
            losses = F.cross_entropy(classifier(hidden), (own & top).long(), reduction="none")
            total = total + (losses / (count * (1 + own.long())).clamp_min(1) * chosen).sum()
        classes = len(self.instance_classifiers) if self.subtyping else 1
        return self.instance_weight * total / (classes * len(sizes))
