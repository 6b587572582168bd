"""Slides that are never on a disk, for tests of what is made of them."""

from typing import Any

import numpy as np
import torch

from kd_mil.core.errors import UserError
from kd_mil.prediction.inputs import SlideInstances
from kd_mil.prediction.tile_geometry import TileGeometry, blank_picture


class Bag:
    """A slide that counts how often it is opened; `size=0` has no tissue, None is damaged."""

    def __init__(self, slide_id: str, size: int | None, case_id: str | None = None, seed: int = 0) -> None:
        self.label = None
        self.slide_id, self.size, self.opened, self.version = slide_id, size, 0, 0
        self.case_id, self.seed = case_id or slide_id, seed

    @property
    def features(self) -> torch.Tensor:
        """(N, 6) float32."""
        return torch.randn(self.size or 0, 6, generator=torch.Generator().manual_seed(self.seed))

    def facts(self) -> list[Any]:
        return [self.slide_id, self.version]

    def open(self) -> SlideInstances:
        self.opened += 1
        if self.size is None:
            raise UserError(f"slide {self.slide_id!r} is damaged")
        if self.size == 0:
            return SlideInstances(0, (), None, None)
        geometry = TileGeometry(np.stack([np.arange(self.size) * 64, np.zeros(self.size, int)], 1), 64)
        return SlideInstances(self.size, self.features.split(4), geometry, blank_picture(geometry, 64))
