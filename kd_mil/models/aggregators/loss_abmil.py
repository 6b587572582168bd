"""Loss-based attention: the classifier's own logits attend (Shi et al., AAAI 2020, doi 10.1609/aaai.v34i04.6030).

LossABMIL(in_features=512)(features, sizes).attention  # (N,), sums to 1 in each bag
"""

from collections.abc import Sequence
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from kd_mil.core.checks import at_least
from kd_mil.models.heads import LogitLayer, hidden_layers
from kd_mil.models.outputs import MILOutput
from kd_mil.models.segments import segment_ids, segment_softmax, segment_weighted_sum


class LossABMIL(nn.Module):
    """One classifier serves instances and bag: an instance weighs as much as the exponentials of its logits, Eq. 4-6.

    That is a softmax over the bag of the log-sum-exp of the class logits. The instance loss, each instance under its
    bag's label and weighted by its attention, is a mean over the bag as in the authors' code.

    Args:
        in_features: D, width of the instance features.
        num_classes: C.
        hidden: widths of the layers before the classifier.
        dropout: share of inputs of every hidden layer set to 0 while training.
        instance_weight: of the instance loss, next to 1 for the bag loss; 2 in the authors' code.

    Raises:
        UserError: a width below 1, dropout outside [0, 1), or a negative weight.
    """

    own_reading = "bag_of_one"
    """Of instances (`kd_mil.methods.base.readings`): the shared classifier on the instance. The attention is high
    where the classifier is sure of any class."""

    def __init__(
        self,
        in_features: int,
        num_classes: int = 2,
        hidden: Sequence[int] = (512,),
        dropout: float = 0.0,
        instance_weight: float = 2.0,
    ) -> None:
        super().__init__()
        at_least("aggregator.instance_weight", instance_weight, 0)
        self.instance_weight = instance_weight
        self.hidden = hidden_layers(in_features, hidden, dropout)
        self.classifier = LogitLayer(hidden[-1] if hidden else in_features, num_classes)

    def forward(self, features: Tensor, sizes: Tensor) -> MILOutput:
        """Pool features (N, D) of bags with sizes (B,)."""
        hidden = self.hidden(features)
        instance_logits = self.classifier(hidden)
        attention_logits = instance_logits.logsumexp(1)
        attention = segment_softmax(attention_logits, sizes)
        embedding = segment_weighted_sum(hidden, attention, sizes)
        loss = partial(self.instance_loss, instance_logits, attention, sizes)
        return MILOutput(self.classifier(embedding), attention_logits, attention, embedding, auxiliary_loss=loss)

    def attention_logits(self, features: Tensor) -> Tensor:
        """Attention logits (N,) of any instances, in or out of bags."""
        return self.classifier(self.hidden(features)).logsumexp(1)

    def instance_loss(self, instance_logits: Tensor, attention: Tensor, sizes: Tensor, labels: Tensor) -> Tensor:
        """Weighted instance loss, Eq. 8, of bags with labels (B,)."""
        owner = segment_ids(sizes, len(attention))
        losses = attention * F.cross_entropy(instance_logits, labels[owner], reduction="none")
        return self.instance_weight * (losses / sizes[owner]).sum() / len(sizes)
