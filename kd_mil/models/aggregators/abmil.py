"""ABMIL: attention-based deep multiple instance learning (Ilse et al., ICML 2018, arXiv 1802.04712).

ABMIL(in_features=512)(features, sizes).bag_logits  # (B, 2) from features (N, 512) of bags with sizes (B,)
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kd_mil.models.heads import Dropout, Initialisation, LogitLayer, hidden_layers, initialise
from kd_mil.models.outputs import MILOutput
from kd_mil.models.segments import in_parts, segment_softmax, segment_weighted_sum_of_parts

PART = 4096
"""Instances that go through the network at once, however bags lie: activations of this size stay in the processor's
cache from layer to layer, and the C library reuses their memory, where it returns larger ones to the system."""


class ABMIL(nn.Module):
    """Attention pooling, plain (Eq. 8) or gated (Eq. 9), of the instances after a few shared layers, Eq. 7.

    The linear maps of the attention have biases, as in the authors' code; the equations have none. With
    hidden (1024, 1024), attention_dim 512, dropout 0.5 and init normal_0.01 it is the teacher WENO released.

    Args:
        in_features: D, width of the instance features.
        num_classes: C.
        hidden: widths of the layers before the attention, none to pool the features themselves.
        attention_dim: width of the attention network.
        gated: multiply the tanh branch by a sigmoid branch.
        dropout: share of inputs of every hidden layer set to 0 while training.
        init: `default` of PyTorch, or the released `normal_0.01`.

    Raises:
        UserError: a width below 1, dropout outside [0, 1), or an unknown init.

    Examples:
        Two bags, of 3 and 2 instances, laid end to end:

        >>> output = ABMIL(in_features=512, gated=True)(torch.randn(5, 512), torch.tensor([3, 2]))
        >>> output.bag_logits.shape, output.attention.shape
        (torch.Size([2, 2]), torch.Size([5]))
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int = 2,
        hidden: Sequence[int] = (512,),
        attention_dim: int = 128,
        gated: bool = False,
        dropout: float = 0.0,
        init: Initialisation = "default",
    ) -> None:
        super().__init__()
        width = hidden[-1] if hidden else in_features
        self.hidden = hidden_layers(in_features, hidden, dropout)
        self.attention = AttentionNetwork(width, attention_dim, gated)
        self.classifier = LogitLayer(width, num_classes)
        initialise(self, init)

    def forward(self, features: Tensor, sizes: Tensor) -> MILOutput:
        """Pool features (N, D) of bags with sizes (B,)."""
        parts = [self.hidden(part) for part in in_parts(features, PART)]
        attention_logits = torch.cat([self.attention(part) for part in parts])
        attention = segment_softmax(attention_logits, sizes)
        embedding = segment_weighted_sum_of_parts(parts, attention, sizes)
        return MILOutput(self.classifier(embedding), attention_logits, attention, embedding)

    def attention_logits(self, features: Tensor) -> Tensor:
        """Attention logits (N,) of any instances, in or out of bags: they do not depend on the rest of the bag."""
        return self.attention(self.hidden(features))


class AttentionNetwork(nn.Module):
    """Logits of each instance: a linear map of tanh(V h), times sigmoid(U h) where gated; one or several branches."""

    def __init__(
        self, in_features: int, attention_dim: int, gated: bool, branches: int = 1, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.tanh_branch = nn.Linear(in_features, attention_dim)
        self.sigmoid_branch = nn.Linear(in_features, attention_dim) if gated else None
        self.dropout = Dropout(dropout)
        self.score = LogitLayer(attention_dim, branches)

    def forward(self, instances: Tensor) -> Tensor:
        """Map (N, E) to the logits (N,) of a single branch, float32 at least."""
        return self.branch_logits(instances).squeeze(1)

    def branch_logits(self, instances: Tensor) -> Tensor:
        """Map (N, E) to (N, branches), float32 at least."""
        hidden = self.dropout(torch.tanh_(self.tanh_branch(instances)))
        if self.sigmoid_branch is not None:
            hidden = hidden * self.dropout(torch.sigmoid_(self.sigmoid_branch(instances)))
        return self.score(hidden)
