"""The most recent keys of other instances, which contrast needs many of."""

from typing import Any

import torch
from torch import Tensor, nn

from kd_mil.core.checks import whole


class KeyQueue(nn.Module):
    """A ring of the last keys with their classes (MoCo, He et al. 2020, arXiv 1911.05722), part of every checkpoint.

    Args:
        length: largest number of keys.
        width: E.

    Raises:
        UserError: a length below 1.
    """

    _keys: Tensor
    _positive: Tensor
    _added: Tensor
    """() int64, keys added so far."""

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        whole("method.queue", length, 1)
        self.register_buffer("_keys", torch.zeros(length, width))
        self.register_buffer("_positive", torch.zeros(length, dtype=torch.bool))
        self.register_buffer("_added", torch.zeros((), dtype=torch.long))
        self._added_here: int | None = 0
        """The same on the host, which would wait for a GPU to say it; None where a checkpoint was read."""

    def __len__(self) -> int:
        if self._added_here is None:
            self._added_here = int(self._added)
        return min(self._added_here, len(self._keys))

    @property
    def keys(self) -> Tensor:
        """(Q, E), in no particular order; a copy, as the ring moves on before the backward pass."""
        return self._keys[: len(self)].clone()

    @property
    def positive(self) -> Tensor:
        """(Q,) bool, the class of each key."""
        return self._positive[: len(self)].clone()

    def add(self, keys: Tensor, positive: Tensor) -> None:
        """Add keys (M, E) with their classes (M,), the oldest make room."""
        length = len(self._keys)
        places = (self._added + torch.arange(len(keys), device=keys.device))[-length:] % length
        self._keys[places] = keys[-length:].to(self._keys.dtype)
        self._positive[places] = positive[-length:]
        self._added += len(keys)
        self._added_here = None if self._added_here is None else self._added_here + len(keys)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._added_here = None
