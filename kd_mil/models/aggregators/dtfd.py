"""DTFD-MIL: double-tier feature distillation with pseudo-bags (Zhang et al., CVPR 2022, arXiv 2203.12081).

DTFD(in_features=512, pseudo_bags=4, distil="afs")(features, sizes).bag_logits
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_mil.core.checks import at_least
from kd_mil.models.aggregators.abmil import AttentionNetwork
from kd_mil.models.heads import LogitLayer, hidden_layers
from kd_mil.models.outputs import MILOutput
from kd_mil.models.segments import (
    at_least_float32,
    bags_of_one,
    known_sizes,
    multiply,
    segment_ids,
    segment_ranks,
    segment_softmax,
    segment_weighted_sum,
)

FirstTierLoss = Callable[[Tensor], Tensor]
PADDING = -1e30
"""Attention logit of cells without an instance; finite, for a pseudo-bag without any."""


class DTFD(nn.Module):
    """Bags are dealt into pseudo-bags; a first attention model classifies those, a second one what they distil to.

    Distilled features of a pseudo-bag, Sec. 3.3: its pooled embedding (`afs`), the instances of the highest (`maxs`),
    or of the highest and lowest (`maxmins`) probability, derived from the first tier's classifier as a class
    activation, Eq. 9-10. Pseudo-bags are random in training; in evaluation instance i of a bag goes to pseudo-bag
    i mod K, so that a prediction is repeatable.

    Attention is that of the first tier over the whole bag.

    Args:
        in_features: D, width of the instance features.
        num_classes: C.
        hidden: widths of the layers before the attention, without biases in the authors' code.
        attention_dim: width of both attention networks.
        pseudo_bags: K; a bag of fewer instances has as many pseudo-bags as instances.
        distil: `afs`, `maxs` or `maxmins`.
        instances_per_bag: how many highest (and lowest) instances of a pseudo-bag are distilled.
        first_tier_weight: of the pseudo-bags' loss, next to 1 for the bag's.

    Raises:
        UserError: a count below 1, or a negative weight.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int = 2,
        hidden: Sequence[int] = (512,),
        attention_dim: int = 128,
        pseudo_bags: int = 4,
        distil: Literal["afs", "maxs", "maxmins"] = "afs",
        instances_per_bag: int = 1,
        first_tier_weight: float = 1.0,
    ) -> None:
        super().__init__()
        at_least("aggregator.pseudo_bags", pseudo_bags, 1)
        at_least("aggregator.instances_per_bag", instances_per_bag, 1)
        at_least("aggregator.first_tier_weight", first_tier_weight, 0)
        width = hidden[-1] if hidden else in_features
        self.pseudo_bags, self.distil, self.instances_per_bag = pseudo_bags, distil, instances_per_bag
        self.first_tier_weight = first_tier_weight
        self.hidden = hidden_layers(in_features, hidden)
        self.first_attention = AttentionNetwork(width, attention_dim, gated=True)
        self.first_classifier = LogitLayer(width, num_classes)
        self.second_attention = AttentionNetwork(width, attention_dim, gated=True)
        self.classifier = LogitLayer(width, num_classes)

    def forward(self, features: Tensor, sizes: Tensor) -> MILOutput:
        """Pool features (N, D) of bags with sizes (B,)."""
        hidden = self.hidden(features)
        attention_logits = self.first_attention(hidden)
        loss: FirstTierLoss
        if bags_of_one(sizes, features.shape[0]):
            embedding, loss = hidden, partial(self.first_tier_loss, hidden, sizes)
        elif sizes.shape[0] == 1 and not self.training:
            embedding, loss = self.embed_one(hidden, attention_logits, sizes)
        else:
            embedding, loss = self.embed(hidden, attention_logits, sizes)
        attention = segment_softmax(attention_logits, sizes)
        return MILOutput(self.classifier(embedding), attention_logits, attention, embedding, auxiliary_loss=loss)

    def attention_logits(self, features: Tensor) -> Tensor:
        """Attention logits (N,) of the first tier, of any instances, in or out of bags."""
        return self.first_attention(self.hidden(features))

    def embed(self, hidden: Tensor, attention_logits: Tensor, sizes: Tensor) -> tuple[Tensor, FirstTierLoss]:
        """Second-tier embedding (B, E) of bags, and the loss of their pseudo-bags."""
        order, pseudo_sizes, count = deal(sizes, len(hidden), self.pseudo_bags, shuffle=self.training)
        dealt, attention = hidden[order], segment_softmax(attention_logits[order], pseudo_sizes)
        pseudo_embedding = segment_weighted_sum(dealt, attention, pseudo_sizes)
        distilled, distilled_sizes = self.distilled(dealt, attention, pseudo_embedding, pseudo_sizes, count)
        second = segment_softmax(self.second_attention(distilled), distilled_sizes)
        embedding = segment_weighted_sum(distilled, second, distilled_sizes)
        return embedding, partial(self.first_tier_loss, pseudo_embedding, count)

    def embed_one(self, hidden: Tensor, attention_logits: Tensor, sizes: Tensor) -> tuple[Tensor, FirstTierLoss]:
        """As `embed` of one bag (N, E) in evaluation, whose N an export may leave open: pseudo-bags as K columns."""
        device, columns = hidden.device, self.pseudo_bags
        # enough rows to take the first ones of, and never one alone, for which an export would make an exception
        rows = (hidden.shape[0] + columns - 1) // columns + self.instances_per_bag
        place = torch.arange(rows, device=device).unsqueeze(1) * columns + torch.arange(columns, device=device)
        real, place = place < sizes, torch.minimum(place, sizes - 1)
        dealt, attention = hidden[place], attention_logits[place].masked_fill(~real, PADDING).softmax(0)
        pseudo_embedding = multiply(attention.t().unsqueeze(1), at_least_float32(dealt).transpose(0, 1)).squeeze(1)
        distilled, counted = pseudo_embedding, real[0]
        if self.distil != "afs":
            chosen = self.extremes(self.derived_probs(self.class_shares(hidden)[place], attention), real)
            distilled = dealt.gather(0, chosen.unsqueeze(2).expand(-1, -1, dealt.shape[2])).flatten(0, 1)
            counted = real.gather(0, chosen).flatten()
        second = self.second_attention(distilled).masked_fill(~counted, -math.inf).softmax(0)
        embedding = multiply(second.unsqueeze(0), at_least_float32(distilled))
        return embedding, lambda labels: self.first_tier_loss(
            pseudo_embedding[: int(sizes)], sizes.clamp_max(columns), labels
        )

    def extremes(self, probs: Tensor, real: Tensor) -> Tensor:
        """Rows (M, K) of the instances that K pseudo-bags distil to, by their probabilities (R, K)."""
        signs = (1, -1) if self.distil == "maxmins" else (1,)
        ranked = [(sign * probs).masked_fill(~real, -math.inf) for sign in signs]
        orders = [values.argsort(dim=0, descending=True, stable=True) for values in ranked]
        return torch.cat([order[: self.instances_per_bag] for order in orders])

    def distilled(
        self, dealt: Tensor, attention: Tensor, pseudo_embedding: Tensor, pseudo_sizes: Tensor, count: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Features (M, E) that the pseudo-bags of each bag distil to, and how many each bag has (B,)."""
        if self.distil == "afs":
            return pseudo_embedding, count
        probs = self.derived_probs(self.class_shares(dealt.detach()), attention.detach())
        picked = [(segment_ranks(probs, pseudo_sizes) < self.instances_per_bag).nonzero().squeeze(1)]
        if self.distil == "maxmins":
            picked.append((segment_ranks(-probs, pseudo_sizes) < self.instances_per_bag).nonzero().squeeze(1))
        chosen = torch.cat(picked)
        bag = segment_ids(count, len(pseudo_sizes))[segment_ids(pseudo_sizes, len(dealt))[chosen]]
        return dealt[chosen[bag.argsort(stable=True)]], bag.bincount(minlength=len(count))

    def derived_probs(self, logits: Tensor, attention: Tensor) -> Tensor:
        """Probability (...) that an instance is positive: softmax over classes of its share in the logits, Eq. 9-10.

        Args:
            logits: (..., C) of the instances by the first tier's classifier, without its bias.
            attention: (...) within their pseudo-bag; in large ones shares are so small that float32 would tie them.
        """
        return 1 - (attention.double().unsqueeze(-1) * logits).softmax(-1)[..., 0]

    def class_shares(self, hidden: Tensor) -> Tensor:
        """Logits (N, C) that instances (N, E) would give with all attention, by the first tier's weights."""
        return multiply(at_least_float32(hidden), self.first_classifier.weight.t())

    def first_tier_loss(self, pseudo_embedding: Tensor, count: Tensor, labels: Tensor) -> Tensor:
        """Weighted loss of the pseudo-bags under the label of their bag (B,): a mean over those of a bag."""
        owner = segment_ids(count, len(pseudo_embedding))
        losses = F.cross_entropy(self.first_classifier(pseudo_embedding), labels[owner], reduction="none")
        return self.first_tier_weight * (losses / count[owner]).sum() / len(count)


def deal(sizes: Tensor, total: int, pseudo_bags: int, shuffle: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Deal every bag into pseudo-bags whose sizes differ by one at most.

    Returns:
        order (N,) in which instances lie pseudo-bag after pseudo-bag, their sizes (P,), and their number in each
        bag (B,).
    """
    owner = segment_ids(sizes, total)
    key = torch.rand(total, device=sizes.device) if shuffle else -torch.arange(total, device=sizes.device)
    count = sizes.clamp_max(pseudo_bags)
    group = segment_ranks(key, sizes) % count[owner] + (count.cumsum(0) - count)[owner]
    pseudo_sizes = sizes.new_zeros(sum(min(size, pseudo_bags) for size in known_sizes(sizes, total)))
    return group.argsort(stable=True), pseudo_sizes.index_add(0, group, torch.ones_like(group)), count
