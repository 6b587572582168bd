"""The teacher's scores of the last epoch for its student: their range and, as a bank, the scores themselves."""

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from kd_mil.data.batches import BagBatch
from kd_mil.models.segments import per_instance

Normalisation = Literal["training_set", "bag"]


class AttentionMemory(nn.Module):
    """Range and bank of teacher scores, complete once `finalize` has run; each rank sees those of all instances.

    Args:
        normalisation: `training_set` keeps one range for all bags, `bag` one range for each bag.
        keep_scores: keep the score of every instance (a bank), for aggregators whose attention cannot be recomputed
            outside the bag.
        classes: scores come as (N, classes), each class with a range of its own; None for one score an instance (N,).
    """

    low: Tensor
    high: Tensor
    scores: Tensor
    """(N, ...) of every instance; infinite, above any range, before its bag was first seen."""

    def __init__(
        self, normalisation: Normalisation = "training_set", keep_scores: bool = False, classes: int | None = None
    ) -> None:
        super().__init__()
        self.per_bag, self.keep_scores = normalisation == "bag", keep_scores
        self.columns = () if classes is None else (classes,)
        self.allocate(num_bags=1, num_instances=0)

    def allocate(self, num_bags: int, num_instances: int) -> None:
        """Size the memory for a data set; forgets everything."""
        ranges = num_bags if self.per_bag else 1
        rows = num_instances if self.keep_scores else 0
        device = next(self.buffers()).device if self._buffers else None
        self.register_buffer("low", torch.zeros(ranges, *self.columns, device=device))
        self.register_buffer("high", torch.ones(ranges, *self.columns, device=device))
        self.register_buffer("scores", torch.full((rows, *self.columns), math.inf, device=device))
        self._open = False

    def record(self, scores: Tensor, bags: BagBatch, keep: Tensor | None, of_all: Callable[[], Tensor]) -> None:
        """Note one step: all instances go to the bank, the range runs over those that mining kept.

        Args:
            scores: (K,) of the kept instances, in the bags that the teacher saw.
            bags: the whole bags, N instances.
            keep: (K,) int64 positions of the kept instances; None where mining is off.
            of_all: scores (N,) in one pass over whole bags, for attention may depend on the rest of the bag.
        """
        owners = per_instance(bags.bag_indices, bags.sizes, len(bags.instance_ids))
        if self.keep_scores and keep is not None:
            with torch.no_grad():
                everything = of_all()
            self.record_scores(everything, bags.instance_ids)
            scores = everything[keep]
        elif self.keep_scores:
            self.record_scores(scores, bags.instance_ids)
        self.record_range(scores, owners if keep is None else owners[keep])

    def record_range(self, scores: Tensor, bag_of_instance: Tensor) -> None:
        """Widen this phase's range by scores of instances that lie in the bags (N,) int64."""
        self._begin()
        group = bag_of_instance if self.per_bag else torch.zeros_like(bag_of_instance)
        scores = scores.detach().to(self.low.dtype)
        group = group.view(-1, *[1] * len(self.columns)).expand_as(scores)
        self._low.scatter_reduce_(0, group, scores, "amin")
        self._high.scatter_reduce_(0, group, scores, "amax")

    def record_scores(self, scores: Tensor, instance_ids: Tensor) -> None:
        """Write the scores of instances into the bank."""
        self._begin()
        self._fresh[instance_ids] = scores.detach().to(self._fresh.dtype)

    def finalize(self) -> None:
        """Close the teacher phase; without one since the last call nothing happens."""
        if not self._open:
            return
        seen = self._high >= self._low
        self.low.copy_(torch.where(seen, self._low, self.low))
        self.high.copy_(torch.where(seen, self._high, self.high))
        if self.keep_scores:
            self.scores.copy_(torch.where(self._fresh.isnan(), self.scores, self._fresh))
        self._open = False

    def range_of(self, bag_of_instance: Tensor) -> tuple[Tensor, Tensor]:
        """(low, high) for instances of the given bags (N,): (N, ...) each, or (1, ...) with one range for all."""
        return (self.low[bag_of_instance], self.high[bag_of_instance]) if self.per_bag else (self.low, self.high)

    def _begin(self) -> None:
        if not self._open:
            self._low = torch.full_like(self.low, math.inf)
            self._high = torch.full_like(self.high, -math.inf)
            self._fresh = torch.full_like(self.scores, math.nan)
            self._open = True

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        """Take the sizes of the checkpoint: prediction has no training set to allocate for."""
        for name in ("low", "high", "scores"):
            stored = state_dict.get(prefix + name)
            if stored is not None:
                setattr(self, name, torch.empty_like(stored, device=getattr(self, name).device))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


NARROWEST_RANGE = 1e-5
"""Scores closer together than this are one score: dividing by less would turn rounding errors into labels."""


def attention_pseudo_labels(
    scores: Tensor, bag_labels: Tensor, low: Tensor, high: Tensor, range_of_bag: bool = False
) -> Tensor:
    """Soft instance labels from teacher attention: Eq. 13, with norm() of Eq. 7.

    Args:
        scores: (M,) teacher attention before the softmax, without gradient.
        bag_labels: (M,) label in {0, 1} of the bag each instance comes from.
        low, high: range of the scores in the last teacher phase, (1,) or (M,); equal on all ranks.
        range_of_bag: the range is that of the instance's own bag.

    Returns:
        (M,) in [0, 1]; exactly 0 for every instance of a negative bag. Where the range is the bag's own and has
        no width, as in a bag of one, and where the bag was not seen yet, as under `balanced_bags`, 1 in a positive
        bag: nothing tells its instances apart.

    Note:
        Eq. 6-7 do not say over what minimum and maximum run, nor whether attention is taken before or after its
        softmax: docs/fidelity.md, "norm".
    """
    return scaled_scores(scores, low, high, range_of_bag).clamp(0, 1) * (bag_labels > 0)


def scaled_scores(scores: Tensor, low: Tensor, high: Tensor, range_of_bag: bool = False) -> Tensor:
    """Scores (M, ...) with `low` at 0 and `high` at 1, not clipped; 1 where a bag's own range has no width."""
    scaled = (scores - low) / (high - low).clamp_min(NARROWEST_RANGE)
    return scaled.masked_fill(high - low < NARROWEST_RANGE, 1.0) if range_of_bag else scaled
