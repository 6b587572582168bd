"""The ways to read a bag classifier for a word on single instances, each under its name.

Attention says what a bag was decided by, and is relative to the bag; what the classifier makes of an instance alone, or
of both with the bag's probability, often ranks instances better. Reading needs no training, so that what a student
gains is to be compared with the best reading of its teacher.
"""

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_mil.core.errors import UserError
from kd_mil.evaluation.ranking import areas
from kd_mil.methods.base.attention_memory import NARROWEST_RANGE, AttentionMemory, scaled_scores
from kd_mil.models.outputs import MILOutput, Prediction, max_pooled
from kd_mil.models.segments import in_parts, per_instance, segment_max, segment_min

InstanceScore = Literal[
    "own", "attention", "attention_x_bag", "bag_of_one", "bag_of_one_x_bag", "instance_stream", "validation"
]
"""Which reading is a network's word on instances: the `own` of its aggregator, a named one, or as `validation` says."""
NAMES = ("attention", "attention_x_bag", "bag_of_one", "bag_of_one_x_bag", "instance_stream")
"""Of the readings of aggregators. Their order is stored in checkpoints: new ones go to the end."""
WITH_BAG = "_x_bag"
"""Ends the names of readings that the bag's own probability is part of."""
AT_ONCE = 4096
"""Bags of one that an aggregator sees at once, so that memory does not grow with the data."""


class Reading(NamedTuple):
    """What one way of reading says of N instances."""

    scores: Tensor
    """(N,) any monotone score of being positive: what ranks."""
    probs: Tensor
    """(N,) in [0, 1]."""
    class_probs: Tensor | None = None
    """(N, C) in [0, 1], where more than two classes are told apart."""


def own_reading(aggregator: nn.Module) -> str:
    """The reading that the authors of an aggregator give: its attribute `own_reading`, attention without one."""
    return str(getattr(aggregator, "own_reading", "attention"))


def check_instance_score(instance_score: InstanceScore, aggregator: nn.Module) -> None:
    """Refuse a reading that an aggregator has no means for.

    Raises:
        UserError: an instance stream where there is none.
    """
    if instance_score == "instance_stream" and not hasattr(aggregator, "instance_logits"):
        raise UserError(
            f"method.instance_score=instance_stream: {type(aggregator).__name__} has no instance stream; "
            "use method.instance_score=bag_of_one"
        )


class BagReadings:
    """All readings of one aggregator on packed bags, each computed when it is first asked for.

    Args:
        aggregator: in evaluation mode.
        features: (N, D) of the bags.
        sizes: (B,) of the bags.
        output: the aggregator's, of these bags.
        scores: (N,) attention logits, or (N, C - 1), one column for each positive class.
        memory: range of such scores over the training set; without one, or where it keeps one for each bag, the range
            is that of the given bags.
        by_class: whether attention tells classes of instances apart.
    """

    def __init__(
        self,
        aggregator: nn.Module,
        features: Tensor,
        sizes: Tensor,
        output: MILOutput,
        scores: Tensor,
        memory: AttentionMemory | None,
        by_class: bool = False,
    ) -> None:
        self.aggregator, self.features, self.sizes, self.output = aggregator, features, sizes, output
        self.own = own_reading(aggregator)
        self._scores, self._by_class = scores, by_class
        self._per_bag = memory is None or memory.per_bag
        known = None if memory is None or memory.per_bag else (memory.low, memory.high)
        self._low, self._high = known or bag_range(scores, sizes)

    @property
    def names(self) -> tuple[str, ...]:
        """Readings that this aggregator has."""
        return NAMES if self.output.instance_logits is not None else NAMES[:-1]

    def __getitem__(self, name: str) -> Reading:
        reading: Reading = getattr(self, name)
        return reading

    def scores(self) -> dict[str, Tensor]:
        """Scores (N,) of every reading, by name."""
        return {name: self[name].scores for name in self.names}

    def probs(self) -> dict[str, Tensor]:
        """Probabilities (N,) of every reading, by name."""
        return {name: self[name].probs for name in self.names}

    def predict(self, name: str) -> Prediction:
        """What the network says of the bags, and of their instances in the reading of that name."""
        reading, bag_probs = self[name], self.output.bag_logits.double().softmax(1)
        word = reading.probs, reading.scores, self.output.attention, reading.class_probs
        return Prediction(bag_probs, *word, self.scores, name, self.probs)

    @cached_property
    def attention(self) -> Reading:
        """Attention logits; as probabilities, scaled by their range over the training set (WENO Eq. 7)."""
        probs = scaled_scores(self._scores, self._low, self._high, self._per_bag).clamp(0, 1)
        if probs.dim() == 1:
            return Reading(self.output.attention_logits, probs)
        positive = probs.amax(1)
        by_class = torch.cat([1 - positive[:, None], probs], 1) if self._by_class else None
        return Reading(self.output.attention_logits, positive, by_class)

    @cached_property
    def attention_x_bag(self) -> Reading:
        """Scaled attention times the bag's probability; not clipped, and as it is where it is below the range."""
        scaled = scaled_scores(self._scores.double(), self._low, self._high, self._per_bag)
        scaled = scaled.masked_fill((self._high - self._low < NARROWEST_RANGE).expand_as(scaled), 1.0)
        scaled = scaled if scaled.dim() == 1 else scaled.amax(1)
        scores = torch.where(scaled > 0, scaled * self._bag_log_prob.exp(), scaled)
        return Reading(scores, scores.clamp(0, 1))

    @cached_property
    def bag_of_one(self) -> Reading:
        """The logit of the instance's being positive as a bag of its own."""
        return classified(bag_of_one_logits(self.aggregator, self.features))

    @cached_property
    def bag_of_one_x_bag(self) -> Reading:
        """Log probability of the instance as a bag of its own, plus that of its bag."""
        scores = F.logsigmoid(self.bag_of_one.scores) + self._bag_log_prob
        return Reading(scores, scores.exp())

    @cached_property
    def instance_stream(self) -> Reading:
        """The logit of being positive by the aggregator's instance classifier."""
        if self.output.instance_logits is None:
            raise UserError(f"{type(self.aggregator).__name__} has no instance stream")
        return classified(self.output.instance_logits)

    @cached_property
    def _bag_log_prob(self) -> Tensor:
        return bag_log_prob(self.output.bag_logits, self.sizes, self.features.shape[0])


def bag_of_one_logits(aggregator: nn.Module, features: Tensor) -> Tensor:
    """Bag logits (N, C) of every instance (N, D) as a bag of its own, whatever the aggregator."""
    ones = torch.ones(features.shape[0], dtype=torch.long, device=features.device)
    parts = zip(in_parts(features, AT_ONCE), in_parts(ones, AT_ONCE), strict=True)
    return torch.cat([aggregator(part, alone).bag_logits for part, alone in parts])


def classified(logits: Tensor) -> Reading:
    """Reading of class logits (N, C): the log-odds of any positive class, in float64 so that sure ones do not tie."""
    logits = logits.double()
    margin = logits[:, 1:].logsumexp(1) - logits[:, 0]
    return Reading(margin, margin.sigmoid(), logits.softmax(1) if logits.shape[1] > 2 else None)


def bag_log_prob(bag_logits: Tensor, sizes: Tensor, total: int) -> Tensor:
    """Log probability (N,) float64, N = `total`, for every instance that its bag is positive; bag logits (B, C)."""
    positive = bag_logits.double().log_softmax(1)[:, 1:].logsumexp(1)
    return per_instance(positive, sizes, total)


def student_prediction(logits: Tensor, bag_logits: Tensor, sizes: Tensor, by_class: bool = False) -> Prediction:
    """What an instance classifier says: of a bag, that it is as positive as its most positive instance.

    Its reading `instance_x_bag` is its log probability plus that of the bag by its teacher.

    Args:
        logits: (N, C) of the instances.
        bag_logits: (B, C) of the teacher.
        sizes: (B,).
        by_class: give probabilities of the classes of instances, also of two.
    """
    probs = logits.double().softmax(1)
    positive = 1 - probs[:, 0] if by_class else probs[:, 1:].sum(1)

    def scores() -> dict[str, Tensor]:
        return {
            "instance_x_bag": F.logsigmoid(classified(logits).scores) + bag_log_prob(bag_logits, sizes, logits.shape[0])
        }

    return Prediction(max_pooled(probs, sizes), positive, positive, None, probs if by_class else None, scores)


def bag_range(scores: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Range of the scores (N, ...) of its own bag, for every instance."""
    if scores.dim() == 2:
        by_class = [bag_range(column, sizes) for column in scores.unbind(1)]
        return torch.stack([low for low, _ in by_class], 1), torch.stack([high for _, high in by_class], 1)
    low, high = segment_min(scores, sizes), segment_max(scores, sizes)
    return per_instance(low, sizes, scores.shape[0]), per_instance(high, sizes, scores.shape[0])


def choose_reading(candidates: Mapping[str, Tensor], in_positive_bag: Tensor) -> str | None:
    """The reading that ranks the instances of positive bags best above those of negative ones, by AUROC.

    If negative instances look alike in all bags, and a share p of the instances of positive bags is positive, a reading
    of AUROC A has 1/2 + p (A - 1/2) here: readings come in the order that instance labels would give. Those that the
    bag's probability is part of break that premise and are left out.

    Args:
        candidates: scores (N,) by name.
        in_positive_bag: (N,) bool.

    Returns:
        A name, the first of equal ones; None with bags of one kind, or nothing to choose from.
    """
    found = {}
    for name, scores in candidates.items():
        if name in NAMES and not name.endswith(WITH_BAG):
            order = scores.argsort(descending=True)
            found[name] = float(areas(scores[order], in_positive_bag[order])[0])
    return max(found, key=lambda name: found[name]) if found and not any(map(math.isnan, found.values())) else None
