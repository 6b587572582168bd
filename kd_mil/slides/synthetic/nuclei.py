"""Nuclei: drawn once in many variants and orientations, then stamped."""

from typing import NamedTuple

import numpy as np

from kd_mil.slides.synthetic.layout import CellKind
from kd_mil.slides.synthetic.textures import TEXTURE_SIZE, noise


class NucleusStyle(NamedTuple):
    """Ranges from which the nuclei of one kind are drawn; lengths in micrometres."""

    long_radius: tuple[float, float]
    aspect: tuple[float, float]
    """Long to short axis."""
    waviness: float
    darkness: tuple[float, float]
    """Haematoxylin concentration."""
    chromatin: float
    """Contrast of the clumps inside."""
    rim: float
    """Extra darkness of the membrane."""
    nucleoli: int
    """At most so many."""


STYLES = {
    CellKind.FIBROBLAST: NucleusStyle((4.5, 10.0), (3.2, 6.0), 0.06, (0.70, 1.20), 0.12, 0.0, 0),
    CellKind.LYMPHOCYTE: NucleusStyle((2.9, 3.7), (1.0, 1.2), 0.04, (1.30, 1.65), 0.16, 0.05, 0),
    CellKind.EPITHELIAL: NucleusStyle((4.6, 5.8), (1.4, 1.9), 0.04, (0.80, 1.10), 0.14, 0.15, 1),
    CellKind.TUMOUR: NucleusStyle((5.0, 8.6), (1.05, 1.7), 0.12, (0.85, 1.55), 0.20, 0.30, 3),
}
VARIANTS = 48
ORIENTATIONS = 16


class NucleusAtlas:
    """Drawings of nuclei, stored as their non-zero pixels only.

    Drawing number (kind, variant, orientation) is `(kind * VARIANTS + variant) * ORIENTATIONS + orientation`.
    """

    def __init__(self, rng: np.random.Generator, mpp: float) -> None:
        self.margin = int(np.ceil(1.5 * max(style.long_radius[1] for style in STYLES.values()) / mpp))
        drawings = [self._draw(rng, STYLES[kind], mpp) for kind in CellKind]
        darkness = np.concatenate(drawings)
        drawing, row, column = np.nonzero(darkness > 0.02)
        self.values = darkness[drawing, row, column]
        self.rows, self.columns = row - self.margin, column - self.margin
        self.counts = np.bincount(drawing, minlength=len(darkness))
        self.starts = np.cumsum(self.counts) - self.counts

    def _draw(self, rng: np.random.Generator, style: NucleusStyle, mpp: float) -> np.ndarray:
        """(VARIANTS * ORIENTATIONS, S, S) haematoxylin of one kind of nucleus."""
        axis = (np.arange(-self.margin, self.margin + 1) * mpp).astype(np.float32)
        y, x = np.meshgrid(axis, axis, indexing="ij")
        turn = (np.pi / ORIENTATIONS * np.arange(ORIENTATIONS, dtype=np.float32))[:, None, None]
        along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
        chromatin = noise(rng, 0.55 / mpp)
        return np.concatenate([_nucleus(rng, style, along, across, chromatin, mpp) for _ in range(VARIANTS)])

    def stamp(self, canvas: np.ndarray, positions: np.ndarray, drawings: np.ndarray) -> None:
        """Draw nuclei into the canvas (h, w) float32, the darker one winning; all must lie `margin` from its edge."""
        counts = self.counts[drawings]
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        source = np.repeat(self.starts[drawings], counts) + within
        corner = np.rint(positions).astype(np.int64)
        origin = np.repeat(corner[:, 1] * canvas.shape[1] + corner[:, 0], counts)
        target = origin + self.rows[source] * canvas.shape[1] + self.columns[source]
        np.maximum.at(canvas.reshape(-1), target, self.values[source])


def _nucleus(
    rng: np.random.Generator,
    style: NucleusStyle,
    along: np.ndarray,
    across: np.ndarray,
    chromatin: np.ndarray,
    mpp: float,
) -> np.ndarray:
    """One nucleus in all orientations; `along` and `across` are coordinates in micrometres on its two axes."""
    long_radius = rng.uniform(*style.long_radius)
    short_radius = long_radius / rng.uniform(*style.aspect)
    u, v = along / long_radius, across / short_radius
    angle, distance = np.arctan2(v, u), np.hypot(u, v)
    edge = 1 + sum(
        style.waviness * rng.normal() / np.sqrt(k) * np.cos(k * angle + rng.uniform(0, 2 * np.pi)) for k in (2, 3, 4)
    )
    depth = (edge - distance) * short_radius
    inside = np.clip(depth / 1.1 + 0.5, 0, 1)
    shift = rng.integers(0, TEXTURE_SIZE, 2)
    rows, columns = (np.rint(axis / mpp).astype(int) for axis in (across, along))
    clumps = chromatin[(rows + shift[0]) % TEXTURE_SIZE, (columns + shift[1]) % TEXTURE_SIZE]
    darkness = rng.uniform(*style.darkness) * (1 + style.chromatin * clumps)
    darkness = darkness + style.rim * np.exp(-((depth - 0.6) ** 2) / 0.5)
    for _ in range(rng.integers(0, style.nucleoli + 1)):
        centre = rng.uniform(-0.45, 0.45, 2) * (long_radius, short_radius)
        darkness = darkness + 0.7 * np.exp(-((along - centre[0]) ** 2 + (across - centre[1]) ** 2) / 0.7)
    return (inside * darkness).astype(np.float32)
