"""What aggregators return, and what a trained method says about bags."""

from typing import NamedTuple

from torch import Tensor

from kd_mil.models.segments import segment_argmax


class MILOutput(NamedTuple):
    """Result of an aggregator on B packed bags with N instances in all."""

    bag_logits: Tensor
    """(B, C) before the softmax over classes."""
    attention_logits: Tensor
    """(N,) before the softmax over the bag; attention of the positive class where it is class-wise."""
    attention: Tensor
    """(N,) sums to 1 within each bag."""
    embedding: Tensor
    """(B, E) bag representation before the classifier."""
    instance_logits: Tensor | None = None
    """(N, C), only from aggregators with an instance stream."""


class Prediction(NamedTuple):
    """What one role (teacher, student, model) says about B packed bags with N instances in all."""

    bag_probs: Tensor
    """(B, C) float64: a saturated float32 softmax would tie scores that differ."""
    instance_probs: Tensor
    """(N,) probability that the instance is positive, in [0, 1]."""
    instance_scores: Tensor
    """(N,) any monotone score of the same; it ranks instances where `instance_probs` is clipped."""
    attention: Tensor | None = None
    """(N,) sums to 1 within each bag; None for roles without attention."""


def critical_logits(output: MILOutput, sizes: Tensor) -> Tensor | None:
    """Instance-stream logits (B, C) of the instance with the highest positive logit in each bag; None without one."""
    if output.instance_logits is None:
        return None
    return output.instance_logits[segment_argmax(output.instance_logits[:, 1].detach(), sizes)]
