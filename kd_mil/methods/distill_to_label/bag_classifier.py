"""An encoder and an aggregator as one network, which also reads single instances, as bags of one."""

import torch
from torch import Tensor, nn

from kd_mil.core.machine.dealing import dealing
from kd_mil.core.machine.shares import WHOLE, WholeStep
from kd_mil.methods.distill_to_label.vat import PackedViews
from kd_mil.models.outputs import MILOutput
from kd_mil.models.segments import per_instance, segment_max, segment_min


class BagClassifier(nn.Module):
    """A bag classifier from instances to logits.

    Args:
        encoder: instances (N, ...) to features (N, D).
        aggregator: features (N, D) and sizes (B,) to `MILOutput`.
    """

    def __init__(self, encoder: nn.Module, aggregator: nn.Module) -> None:
        super().__init__()
        self.encoder, self.aggregator = encoder, aggregator

    @property
    def pointwise(self) -> bool:
        """Whether the features of an instance do not depend on what else is in the batch."""
        return not any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in self.encoder.modules())

    def forward(self, instances: Tensor, sizes: Tensor, step: WholeStep | None = None) -> MILOutput:
        """Classify bags with sizes (B,), of whose instances this rank has a share (n, ...)."""
        with dealing(step) as deal:
            features = deal.gather(self.encoder(instances))
        return self.aggregator(features, sizes)

    def read(self, features: Tensor, sizes: Tensor) -> tuple[MILOutput, Tensor]:
        """Of encoded instances (N, D): bags with sizes (B,), and logits (N, C) of every instance as a bag of one."""
        ones = torch.ones(features.shape[0], dtype=sizes.dtype, device=sizes.device)
        return self.aggregator(features, sizes), self.aggregator(features, ones).bag_logits

    def classify_views(self, instances: Tensor, views: PackedViews, step: WholeStep = WHOLE) -> MILOutput:
        """Classify all views of some bags at once; each instance is encoded once, unless batch statistics mix them.

        Args:
            instances: (n, ...) this rank's share of what views point into.
            views: the bags.
            step: of which the instances are a share.
        """
        sizes = torch.tensor(views.sizes).to(views.positions.device, non_blocking=True)
        if self.pointwise:
            with dealing(step) as deal:
                features = deal.gather(self.encoder(instances))
            return self.aggregator(features[views.positions], sizes)
        bags, of_views = len(views.sizes) // len(views.names), []
        counts = [sum(views.sizes[first : first + bags]) for first in range(0, len(views.sizes), bags)]
        for positions in views.positions.split(counts):
            view, own = step.take(positions)
            with dealing(view) as deal:
                of_views.append(deal.gather(self.encoder(instances[own.to(instances.device)])))
        return self.aggregator(torch.cat(of_views), sizes)


def first_bags(output: MILOutput, bags: int, instances: int) -> MILOutput:
    """What the label loss reads of the first of several equal views: `bags` bags with `instances` instances."""
    stream, auxiliary, views = output.instance_logits, output.auxiliary_loss, len(output.bag_logits) // bags
    return output._replace(
        bag_logits=output.bag_logits[:bags],
        instance_logits=None if stream is None else stream[:instances],
        # an aggregator's own loss looks at every view
        auxiliary_loss=None if auxiliary is None else lambda labels: auxiliary(labels.repeat(views)),
    )


def relative_attention(attention: Tensor, sizes: Tensor) -> Tensor:
    """Attention (N,) scaled to [0, 1] within each bag, as Ilse et al. 2018 show it; 1 in a bag of equal weights."""
    total = attention.shape[0]
    low, high = (per_instance(extreme(attention, sizes), sizes, total) for extreme in (segment_min, segment_max))
    return torch.where(high > low, (attention - low) / (high - low), 1.0)
