"""The share of positive instances in positive bags that labels by transport assume."""

import math

import torch
from torch import Tensor, nn

from kd_mil.core.checks import share
from kd_mil.core.errors import UserError
from kd_mil.methods.base.transport import positive_share


class PositiveMass(nn.Module):
    """A number, approached from 0.5 during the first half of training, or an estimate from validation bags.

    Args:
        mass: the number in (0, 1], or `mixture`: `positive_share` on validation bags with their bag labels.
        largest: limit of the estimate, in (0, 1).
        momentum: weight of earlier estimates, in [0, 1).
        setting: what the user sets it with, in messages.

    Raises:
        UserError: a setting outside its range.
    """

    estimate: Tensor
    """() float64 running estimate; infinite before the first."""

    def __init__(self, mass: float | str, largest: float, momentum: float, setting: str) -> None:
        super().__init__()
        share(f"{setting}.largest_mass", largest, zero=False, one=False)
        share(f"{setting}.momentum", momentum, one=False)
        if isinstance(mass, str) and mass != "mixture":
            raise UserError(f"{setting}.mass={mass}: a share between 0 and 1, or mixture")
        if not isinstance(mass, str):
            share(f"{setting}.mass", mass, zero=False)
        self.mass, self.largest, self.momentum, self.setting = mass, largest, momentum, setting
        self.register_buffer("estimate", torch.tensor(math.inf, dtype=torch.float64))

    @property
    def needs_validation(self) -> bool:
        """Whether the mass is estimated."""
        return self.mass == "mixture"

    def estimated(self, unlabelled: Tensor, negative: Tensor, mean_size: float) -> float:
        """The estimate from scores of instances of positive (U,) and negative (V,) validation bags.

        Each positive bag holds one positive instance at least: not below 1 / `mean_size`, the mean size of a bag.
        """
        found, earlier = positive_share(unlabelled, negative), float(self.estimate)
        self.estimate.fill_(found if math.isinf(earlier) else self.momentum * earlier + (1 - self.momentum) * found)
        return min(max(float(self.estimate), 1 / mean_size), self.largest)

    def scheduled(self, epoch: int, epochs: int | None) -> float:
        """The number in an epoch (from 0) of a run; one below 0.5 is approached in a straight line.

        Raises:
            UserError: a run without an end, for which there is no half.
        """
        mass = float(self.mass)
        if mass >= 0.5:
            return mass
        if epochs in (None, -1):
            raise UserError(f"{self.setting}.mass={self.mass} needs trainer.max_epochs")
        return 0.5 + (mass - 0.5) * min(1.0, epoch / (epochs / 2))
