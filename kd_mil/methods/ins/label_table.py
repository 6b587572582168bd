"""Soft labels of all training instances, which change a little whenever an instance is seen."""

from typing import Any

import torch
from torch import Tensor, nn

from kd_mil.core.checks import share


class LabelTable(nn.Module):
    """Probability of being positive for every instance, part of every checkpoint.

    It is 0 for instances of negative bags, always.

    Args:
        start: of instances of positive bags: 1/2 says that either class may be theirs, 1 is the label of the bag.

    Raises:
        UserError: a start outside [0, 1].
    """

    positive: Tensor
    """(N,) of all instances of the data set, by instance id."""

    def __init__(self, start: float = 0.5) -> None:
        super().__init__()
        share("method.label_start", start)
        self.start = start
        self.allocate(torch.zeros(0, dtype=torch.bool))

    def allocate(self, in_positive_bag: Tensor) -> None:
        """Begin anew for a data set of N instances, of which (N,) bool lie in positive bags."""
        self.register_buffer("positive", self.start * in_positive_bag.to(torch.get_default_dtype()))

    def update(self, instance_ids: Tensor, called_positive: Tensor, keep: float) -> None:
        """Move labels towards what instances have just been called.

        Args:
            instance_ids: (M,), each once.
            called_positive: (M,) bool, False for all of negative bags.
            keep: weight of the label as it was, in [0, 1].
        """
        called = called_positive.to(self.positive.dtype)
        self.positive[instance_ids] = keep * self.positive[instance_ids] + (1 - keep) * called

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        """Take the size of the checkpoint: prediction has no training set to allocate for."""
        stored = state_dict.get(f"{prefix}positive")
        if stored is not None:
            self.positive = torch.empty_like(stored, device=self.positive.device)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
