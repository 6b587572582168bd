"""DSMIL: dual-stream multiple instance learning (Li et al., CVPR 2021, arXiv 2011.08939), and WENO's variant.

DSMIL(in_features=512)(features, sizes).instance_logits  # (N, 2), the instance stream
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from kd_mil.models.heads import Initialisation, LogitLayer, hidden_layers, initialise
from kd_mil.models.outputs import MILOutput, positive_logits
from kd_mil.models.segments import (
    at_least_float32,
    per_instance,
    segment_argmax,
    segment_dot,
    segment_softmax,
    segment_weighted_sum,
)

Query = Literal["linear", "mlp"]
Value = Literal["identity", "relu", "linear"]


class DSMIL(nn.Module):
    """An instance stream finds the critical instance of each class; the bag stream attends by likeness to it, Eq. 3-6.

    The logit of instance i for class c is q_i . q_c / sqrt(d) with q_c the query of the critical instance of class c.
    `bag_logits` are those of the bag stream alone; the instance stream leaves as `instance_logits`, and who trains the
    model combines the two. Attention is that of class 1, or of the strongest positive class where there are more. It
    depends on the critical instance, so unlike the instance logits it has no meaning outside the bag. Defaults follow
    binli123/dsmil-wsi; WENO's released teacher has hidden (1024, 1024), dropout 0.5, linear queries of 1024 and linear
    values.

    Args:
        in_features: D, width of the instance features.
        num_classes: C.
        hidden: widths of layers before both streams, none to use the features themselves.
        attention_dim: d, width of the queries.
        query: `linear`, or `mlp` = Linear-ReLU-Linear-tanh.
        value: what is averaged: `identity` (the instances), `relu` or `linear` (a linear layer with or without ReLU).
        dropout: share of inputs of every hidden layer set to 0 while training.
        init: `default` of PyTorch, or the released `normal_0.01` (linear layers only).

    Raises:
        UserError: a width below 1, or dropout outside [0, 1).
    """

    own_reading = "instance_stream"
    """Of instances (`kd_mil.methods.base.readings`): scores of the instance classifier, as WENO's code reads DSMIL."""

    def __init__(
        self,
        in_features: int,
        num_classes: int = 2,
        hidden: Sequence[int] = (),
        attention_dim: int = 128,
        query: Query = "mlp",
        value: Value = "identity",
        dropout: float = 0.0,
        init: Initialisation = "default",
    ) -> None:
        super().__init__()
        width = hidden[-1] if hidden else in_features
        self.hidden = hidden_layers(in_features, hidden, dropout)
        self.scorer = LogitLayer(width, num_classes)
        first, last = nn.Linear(width, attention_dim), nn.Linear(attention_dim, attention_dim)
        self.query = first if query == "linear" else nn.Sequential(first, nn.ReLU(inplace=True), last, nn.Tanh())
        self.value = nn.Identity() if value == "identity" else nn.Linear(width, width)
        self.rectify = value == "relu"
        self.classifier = nn.Conv1d(num_classes, num_classes, kernel_size=width)
        self.scale = 1 / math.sqrt(attention_dim)
        initialise(self, init)

    def forward(self, features: Tensor, sizes: Tensor) -> MILOutput:
        """Pool features (N, D) of bags with sizes (B,)."""
        hidden = self.hidden(features)
        instance_logits = self.scorer(hidden)
        critical = segment_argmax(instance_logits, sizes)
        logits = self.query_logits(hidden, hidden[critical], sizes)
        attention = segment_softmax(logits, sizes)
        embedding = self.pool_values(hidden, attention, sizes)
        with torch.autocast(features.device.type, enabled=False):
            bag_logits = self.classifier(embedding).squeeze(2)
        positive = positive_logits(logits)
        pooled = attention[:, 1] if logits.shape[1] == 2 else segment_softmax(positive, sizes)
        return MILOutput(bag_logits, positive, pooled, embedding.flatten(1), instance_logits, logits)

    def instance_logits(self, features: Tensor) -> Tensor:
        """Class logits (N, C) of any instances, in or out of bags: the instance stream."""
        return self.scorer(self.hidden(features))

    def query_logits(self, hidden: Tensor, critical: Tensor, sizes: Tensor) -> Tensor:
        """Attention logits (N, C) of instances (N, E) towards the critical instances (B, C, E) of their bag."""
        queries = self.query(critical) * self.scale
        if not isinstance(self.query, nn.Linear):
            return segment_dot(self.query(hidden), queries, sizes)
        # (W h + b) . q = h . (W' q) + b . q: one product per bag and class in place of one per instance
        offsets = per_instance(queries @ self.query.bias, sizes, hidden.shape[0])
        return segment_dot(hidden, queries @ self.query.weight, sizes) + offsets

    def pool_values(self, hidden: Tensor, attention: Tensor, sizes: Tensor) -> Tensor:
        """Mean (B, C, E) of the values of a bag, weighted by attention (N, C)."""
        if self.rectify:
            return segment_weighted_sum(torch.relu_(self.value(hidden)), attention, sizes)
        # attention sums to 1, so a linear map of the mean is the mean of the linear maps
        return at_least_float32(self.value(segment_weighted_sum(hidden, attention, sizes)))
