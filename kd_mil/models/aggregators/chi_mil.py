"""ChiMIL: multiple instance learning with center embeddings (Chikontwe et al., MICCAI 2020).

doi 10.1007/978-3-030-59722-1_50

    ChiMIL(in_features=512, top=32)(features, sizes).bag_logits
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_mil.core.checks import at_least
from kd_mil.models.aggregators.pooling import positive_margin
from kd_mil.models.heads import LogitLayer
from kd_mil.models.outputs import MILOutput
from kd_mil.models.segments import segment_ids, segment_ranks, segment_weighted_sum


class ChiMIL(nn.Module):
    """The k most positive instances of a bag stand for it, and bag embeddings of a class gather about its centre.

    Instances are embedded by a linear layer and classified; the mean of those k of the largest margin goes through ReLU
    and a second embedding to classify the bag. The authors combine the k feature *maps* by convolutions instead, which
    features do not have. Attention is 1/k for the chosen instances; its logits are the margins.

    Args:
        in_features: D, width of the instance features.
        num_classes: C; class 0 is the negative one.
        width: of both embeddings.
        top: k, instances that stand for a bag; all of a smaller one.
        instance_weight: of the loss of these instances under their bag's label.
        center_weight: of the squared distance of the normalised bag embedding to the centre of its class.

    Raises:
        UserError: `top` below 1 or a negative weight.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int = 2,
        width: int = 512,
        top: int = 32,
        instance_weight: float = 1.0,
        center_weight: float = 1.0,
    ) -> None:
        super().__init__()
        at_least("aggregator.top", top, 1)
        at_least("aggregator.instance_weight", instance_weight, 0)
        at_least("aggregator.center_weight", center_weight, 0)
        self.top, self.instance_weight, self.center_weight = top, instance_weight, center_weight
        self.embed = nn.Linear(in_features, width)
        self.instance_classifier = LogitLayer(width, num_classes)
        self.embed_bag = nn.Linear(width, width)
        self.classifier = LogitLayer(width, num_classes)
        self.centers = nn.Parameter(nn.init.xavier_uniform_(torch.empty(num_classes, width)))

    def forward(self, features: Tensor, sizes: Tensor) -> MILOutput:
        """Pool features (N, D) of bags with sizes (B,)."""
        embedded = self.embed(features)
        instance_logits = self.instance_classifier(embedded)
        margin = positive_margin(instance_logits)
        owner, count = segment_ids(sizes, features.shape[0]), sizes.clamp_max(self.top)
        chosen = segment_ranks(margin, sizes) < count[owner]
        attention = chosen / count[owner].to(margin.dtype)
        embedding = self.embed_bag(segment_weighted_sum(embedded, attention, sizes).relu())
        loss = partial(self.center_loss, instance_logits, attention, owner, embedding)
        return MILOutput(self.classifier(embedding), margin, attention, embedding, auxiliary_loss=loss)

    def attention_logits(self, features: Tensor) -> Tensor:
        """Margin (N,) of any instances, in or out of bags."""
        return positive_margin(self.instance_classifier(self.embed(features)))

    def center_loss(
        self, instance_logits: Tensor, attention: Tensor, owner: Tensor, embedding: Tensor, labels: Tensor
    ) -> Tensor:
        """Weighted losses of the chosen instances and of the distance to the centres, for labels (B,)."""
        losses = F.cross_entropy(instance_logits, labels[owner], reduction="none")
        distance = (F.normalize(embedding) - self.centers[labels]).square().sum(1)
        instances, centers = (attention * losses).sum() / len(labels), distance.mean()
        return self.instance_weight * instances + self.center_weight * centers
