"""What aggregators return, and what a trained method says about bags."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kd_mil.models.segments import segment_argmax, segment_max


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
    class_attention_logits: Tensor | None = None
    """(N, C) before the softmax over the bag, only from aggregators that attend for each class by itself."""
    auxiliary_loss: Callable[[Tensor], Tensor] | None = None
    """What the aggregator adds to the loss of the bags, from their labels (B,): weighted, a mean over the bags."""


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
    class_probs: Tensor | None = None
    """(N, C) scores in [0, 1] of the classes of an instance, from roles that tell more than two apart."""
    readings: Callable[[], dict[str, Tensor]] | None = None
    """What other ways of reading the role say of its instances, scores (N,) by name; computed when called."""
    reading: str | None = None
    """Name of the reading that `instance_probs` are, from bag classifiers; None from instance classifiers."""
    reading_probs: Callable[[], dict[str, Tensor]] | None = None
    """Probabilities (N,) that the instance is positive in each of `readings`, where any of them can be the word."""

    def on_cpu(self, readings: bool = False) -> "Prediction":
        """The same on the CPU, with its readings as they are computed now, or without."""
        values: list[Any] = [value.cpu() if isinstance(value, Tensor) else value for value in self]
        found = self.readings() if readings and self.readings is not None else None
        scores = None if found is None else {name: column.cpu() for name, column in found.items()}
        return Prediction(*values)._replace(readings=None if scores is None else lambda: scores, reading_probs=None)

    def of_instances(self, rows: slice) -> "Prediction":
        """The same of some of its instances; what is said of bags stays."""
        names = ("instance_probs", "instance_scores", "attention", "class_probs")
        parts = {name: value[rows] for name in names if (value := getattr(self, name)) is not None}
        found = self.readings
        some = None if found is None else lambda: {name: column[rows] for name, column in found().items()}
        return self._replace(**parts, readings=some, reading_probs=None)


class SegmentationOutput(NamedTuple):
    """Result of a segmenter on B images of H by W pixels."""

    sides: Tensor
    """(B, S, H, W) float32 in [0, 1], one probability map for each stage, finest first."""
    fused: Tensor
    """(B, H, W) float32 in [0, 1], a fixed convex combination of the sides."""


def critical_logits(output: MILOutput, sizes: Tensor) -> Tensor | None:
    """Instance-stream logits (B, C) of the critical instances; None without an instance stream.

    Two classes: both logits of the instance with the highest positive one. More: the highest logit of each class.
    """
    logits = output.instance_logits
    if logits is None:
        return None
    if logits.shape[1] == 2:
        return logits[segment_argmax(logits[:, 1].detach(), sizes)]
    return torch.stack([segment_max(column, sizes) for column in logits.unbind(1)], 1)


def positive_logits(class_logits: Tensor) -> Tensor:
    """Attention logits (N,) of the positive class, of the strongest one of several, from class-wise ones (N, C)."""
    return class_logits[:, 1:].amax(1)


def class_scores(output: MILOutput, num_classes: int) -> Tensor:
    """Attention logits (N, C - 1) for the positive classes; the same for all where the aggregator has one attention."""
    if output.class_attention_logits is not None:
        return output.class_attention_logits[:, 1:]
    return output.attention_logits[:, None].expand(-1, num_classes - 1)


def max_pooled(probs: Tensor, sizes: Tensor) -> Tensor:
    """Bag probabilities (B, C) of instances (N, C): a bag is as positive as its most positive instance.

    With two classes [1 - max, max]. With more the largest of the positive maxima says how positive the bag is, and
    the positive classes share that in proportion to their maxima.
    """
    peaks = torch.stack([segment_max(column, sizes) for column in probs[:, 1:].unbind(1)], 1)
    positive = peaks.amax(1, keepdim=True)
    shares = peaks / peaks.sum(1, keepdim=True).clamp_min(torch.finfo(peaks.dtype).tiny)
    return torch.cat([1 - positive, positive * shares], 1)
