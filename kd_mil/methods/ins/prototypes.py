"""A unit vector for each class, the running mean of what is taken for that class."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_mil.core.checks import share


class Prototypes(nn.Module):
    """Prototypes of the negative and the positive class, part of every checkpoint.

    Args:
        width: E.
        momentum: weight of a prototype when an instance is added to it, in [0, 1).

    Raises:
        UserError: a momentum outside its range.
    """

    vectors: Tensor
    """(2, E) of unit length; zeros before the first instance of a class."""

    def __init__(self, width: int, momentum: float = 0.9) -> None:
        super().__init__()
        share("method.prototype_momentum", momentum, one=False)
        self.momentum = momentum
        self.register_buffer("vectors", torch.zeros(2, width))

    def nearest(self, features: Tensor) -> Tensor:
        """Mask (M,) of the features (M, E) that are more like the positive prototype."""
        similarities = features @ self.vectors.T
        return similarities[:, 1] > similarities[:, 0]

    def update(self, features: Tensor, positive: Tensor) -> None:
        """Add features (M, E) of unit length one after the other, then normalise: the last one weighs most.

        Args:
            features: in their order.
            positive: (M,) bool, the class of each.
        """
        member = torch.stack([~positive, positive], 1).to(features)
        later = member.flip(0).cumsum(0).flip(0) - member  # instances of the class that come after each
        added = (member * (1 - self.momentum) * self.momentum**later).T @ features
        kept = self.momentum ** member.sum(0)[:, None]
        self.vectors.copy_(F.normalize(kept * self.vectors + added, dim=1))
