"""Mean and max pooling: the two bag classifiers without trained attention (Wang et al. 2018, arXiv 1610.02501).

Max(in_features=512)(features, sizes).bag_logits
"""

import torch
from torch import Tensor, nn

from kd_mil.models.heads import LogitLayer
from kd_mil.models.outputs import MILOutput
from kd_mil.models.segments import per_instance, segment_argmax, segment_mean


class Mean(nn.Module):
    """Linear classifier of the mean feature vector; every instance has the same attention 1/n.

    Args:
        in_features: D, width of the instance features.
        num_classes: C.
    """

    def __init__(self, in_features: int, num_classes: int = 2) -> None:
        super().__init__()
        self.classifier = LogitLayer(in_features, num_classes)

    def forward(self, features: Tensor, sizes: Tensor) -> MILOutput:
        """Pool features (N, D) of bags with sizes (B,)."""
        embedding = segment_mean(features, sizes)
        attention = per_instance(1.0 / sizes, sizes, features.shape[0])
        return MILOutput(self.classifier(embedding), torch.zeros_like(attention), attention, embedding)


class Max(nn.Module):
    """Linear instance classifier; a bag takes the logits of its most positive instance.

    Most positive is the instance with the largest margin (its attention logit); attention is 1 there, 0 elsewhere. No
    instance stream leaves it: its loss would be that of another instance, the one of the largest positive logit.

    Args:
        in_features: D, width of the instance features.
        num_classes: C; class 0 is the negative one.
    """

    def __init__(self, in_features: int, num_classes: int = 2) -> None:
        super().__init__()
        self.classifier = LogitLayer(in_features, num_classes)

    def forward(self, features: Tensor, sizes: Tensor) -> MILOutput:
        """Pool features (N, D) of bags with sizes (B,)."""
        instance_logits = self.classifier(features)
        margin = positive_margin(instance_logits)
        critical = segment_argmax(margin, sizes)
        attention = torch.zeros_like(margin).index_fill(0, critical, 1.0)
        return MILOutput(instance_logits[critical], margin, attention, features[critical])

    def attention_logits(self, features: Tensor) -> Tensor:
        """Margin (N,) of any instances, in or out of bags."""
        return positive_margin(self.classifier(features))


def positive_margin(logits: Tensor) -> Tensor:
    """By how much the strongest positive class of logits (N, C) exceeds class 0: (N,)."""
    return logits[:, 1:].amax(1) - logits[:, 0]
