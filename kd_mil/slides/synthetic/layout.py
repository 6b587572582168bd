"""What lies where on a synthetic slide: regions of tissue and nuclei, and the outlines of tumour.

Geometry alone, in level-0 pixels with the origin at the top left; `painting` gives it colour.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import shapely

RegionKind = Literal["tissue", "nest", "gland", "vessel", "lymphoid", "fat", "fat cell", "cytoplasm"]

FIRST_HARMONIC = 2


class CellKind(IntEnum):
    """What a nucleus looks like."""

    FIBROBLAST = 0
    LYMPHOCYTE = 1
    EPITHELIAL = 2
    TUMOUR = 3


@dataclass(frozen=True)
class Blob:
    """A star-shaped region: the distance from its centre to its edge is a sum of waves over the angle."""

    x: float
    y: float
    radius: float
    amplitudes: np.ndarray
    """(K,) relative amplitudes of the waves with 2, 3, ... K + 1 periods around the centre."""
    phases: np.ndarray
    """(K,) radians."""

    @cached_property
    def reach(self) -> float:
        """Largest distance from the centre to the edge."""
        return float(self.edge(np.linspace(0, 2 * np.pi, 96)).max())

    def edge(self, angles: np.ndarray) -> np.ndarray:
        """Distance from the centre to the edge in the given directions (radians), same shape as `angles`."""
        factor = np.ones_like(angles)
        for period, (amplitude, phase) in enumerate(zip(self.amplitudes, self.phases, strict=True), FIRST_HARMONIC):
            factor += amplitude * np.cos(period * angles + phase)
        return self.radius * factor

    def depth(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """How far inside the points lie, in pixels along the ray from the centre; negative outside."""
        return self.edge(np.arctan2(y - self.y, x - self.x)) - np.hypot(x - self.x, y - self.y)

    def outline(self, points: int = 96) -> np.ndarray:
        """(points, 2) vertices (x, y) of the edge."""
        angles = np.linspace(0, 2 * np.pi, points, endpoint=False)
        return self.ring(angles, np.zeros(points))

    def ring(self, angles: np.ndarray, depth: np.ndarray) -> np.ndarray:
        """(N, 2) points at the given angles, `depth` pixels inside the edge."""
        distance = self.edge(angles) - depth
        return np.stack([self.x + distance * np.cos(angles), self.y + distance * np.sin(angles)], axis=1)


class Cells(NamedTuple):
    """N nuclei."""

    positions: np.ndarray
    """(N, 2) float (x, y) of the centre."""
    kinds: np.ndarray
    """(N,) CellKind."""
    angles: np.ndarray
    """(N,) direction of the long axis in radians; NaN = along the fibres."""


@dataclass
class Layout:
    """One slide before it is painted."""

    size: int
    mpp: float
    regions: list[tuple[RegionKind, Blob]] = field(default_factory=list)
    """In painting order: tissue first."""
    cells: Cells = field(default_factory=lambda: Cells(np.empty((0, 2)), np.empty(0, int), np.empty(0)))
    easy: list[shapely.Polygon] = field(default_factory=list)
    """Outlines of tumour nests."""
    hard: list[shapely.Polygon] = field(default_factory=list)
    """Outlines around tumour cells that are scattered in stroma."""

    def regions_across(self, top: float, bottom: float, margin: float) -> Iterator[tuple[RegionKind, Blob]]:
        """Regions that come within `margin` pixels of the rows between `top` and `bottom`, in painting order."""
        for kind, blob in self.regions:
            if top - margin < blob.y + blob.reach and blob.y - blob.reach < bottom + margin:
                yield kind, blob
