"""Paint a synthetic layout as H&E: dye concentrations from region layers, fibre texture and stamped nuclei.

Everything is painted strip by strip, so a slide of any size needs the memory of a strip. Textures are periodic and
drawn once; each slide sees them from another offset.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

from kd_mil.slides.synthetic.layout import Layout, RegionKind
from kd_mil.slides.synthetic.nuclei import ORIENTATIONS, VARIANTS, NucleusAtlas
from kd_mil.slides.synthetic.stain import Stain
from kd_mil.slides.synthetic.textures import TEXTURE_SIZE, Textures, seen_from

COARSE = 4
"""Region layers are painted on every fourth pixel and enlarged."""
HALO = 2
SURROUNDINGS = 24.0
"""Micrometres around a region that its layers may touch."""


class Layer(NamedTuple):
    """What a region is made of from a depth inwards (micrometres from its edge; negative = around it)."""

    depth: float
    softness: float
    eosin: float
    haematoxylin: float
    fibre: float
    """Contrast of collagen fibres."""
    grain: float
    """Contrast of granular cytoplasm."""


LAYERS: dict[RegionKind, tuple[Layer, ...]] = {
    "tissue": (Layer(0, 6, 0.50, 0.05, 0.20, 0.04),),
    "nest": (Layer(-4, 3, 0.22, 0.03, 0.06, 0.02), Layer(0, 2, 0.50, 0.30, 0.0, 0.09)),
    "gland": (
        Layer(-2, 2, 0.62, 0.06, 0.08, 0.02),
        Layer(0, 2, 0.46, 0.22, 0.0, 0.06),
        Layer(19, 3, 0.03, 0.01, 0.0, 0.01),
    ),
    "vessel": (Layer(-1, 2, 0.72, 0.06, 0.08, 0.03), Layer(4, 2, 0.95, 0.0, 0.0, 0.22)),
    "lymphoid": (Layer(6, 30, 0.30, 0.14, 0.04, 0.05),),
    "fat": (Layer(8, 10, 0.50, 0.05, 0.05, 0.03),),
    "fat cell": (Layer(0, 2, 0.02, 0.0, 0.0, 0.0),),
    "cytoplasm": (Layer(0, 3, 0.50, 0.28, 0.03, 0.08),),
}


class Painter:
    """Paints layouts; textures and nuclei are drawn once and shared by all slides of a set."""

    def __init__(self, seed: int, mpp: float) -> None:
        rng = np.random.default_rng(seed)
        self.mpp, self.textures, self.atlas = mpp, Textures(rng, mpp), NucleusAtlas(rng, mpp)

    def strips(self, layout: Layout, rng: np.random.Generator, height: int = 256) -> Iterator[np.ndarray]:
        """Yield the slide as strips (<= height, size, 3) uint8 from the top down; `height` is a multiple of 4."""
        stain, shift = Stain(rng), rng.integers(0, TEXTURE_SIZE, 2)
        drawings = self._choose_drawings(layout, rng, shift)
        for top in range(0, layout.size, height):
            rows = np.arange(top, min(top + height, layout.size))
            eosin, haematoxylin, fibre, grain = self._enlarged_regions(layout, rows, shift)
            columns = np.arange(layout.size)
            eosin += fibre * seen_from(shift, self.textures.fibre, rows, columns)
            speckle = seen_from(shift, self.textures.grain, rows, columns)
            eosin += grain * speckle
            haematoxylin += 0.6 * grain * speckle
            nuclei = self._nuclei(layout, rows, drawings)
            eosin *= 1 - 0.45 * np.minimum(nuclei, 1)
            yield stain(np.maximum(haematoxylin, nuclei), eosin)

    def _choose_drawings(self, layout: Layout, rng: np.random.Generator, shift: np.ndarray) -> np.ndarray:
        """(N,) drawing of every cell; cells without an angle follow the fibres."""
        positions, kinds, angles = layout.cells
        columns, rows = (np.rint(positions).astype(int) + shift).T % TEXTURE_SIZE
        angles = np.where(np.isnan(angles), self.textures.fibre_angle[rows, columns], angles)
        orientations = np.rint(angles / np.pi * ORIENTATIONS).astype(int) % ORIENTATIONS
        return (kinds * VARIANTS + rng.integers(0, VARIANTS, len(kinds))) * ORIENTATIONS + orientations

    def _nuclei(self, layout: Layout, rows: np.ndarray, drawings: np.ndarray) -> np.ndarray:
        """(h, w) haematoxylin of the nuclei that reach into the rows."""
        margin = self.atlas.margin
        positions = layout.cells.positions - (0, rows[0])
        inside = (positions > -margin) & (positions < (layout.size + margin, len(rows) + margin))
        near = inside.all(axis=1)
        canvas = np.zeros((len(rows) + 4 * margin, layout.size + 4 * margin), np.float32)
        self.atlas.stamp(canvas, positions[near] + 2 * margin, drawings[near])
        return canvas[2 * margin : -2 * margin, 2 * margin : -2 * margin]

    def _enlarged_regions(self, layout: Layout, rows: np.ndarray, shift: np.ndarray) -> list[np.ndarray]:
        """Eosin, haematoxylin, fibre and grain contrast (h, w) of the rows."""
        coarse = self._regions(layout, rows, shift)
        height, width = len(rows) / COARSE, layout.size / COARSE
        box = (HALO, HALO, HALO + width, HALO + height)
        size = (layout.size, len(rows))
        return [np.array(Image.fromarray(dye).resize(size, Image.Resampling.BILINEAR, box=box)) for dye in coarse]

    def _regions(self, layout: Layout, rows: np.ndarray, shift: np.ndarray) -> np.ndarray:
        """(4, h / COARSE, w / COARSE) region layers with a margin of HALO."""
        y = np.arange(rows[0] // COARSE - HALO, -(-(rows[-1] + 1) // COARSE) + HALO) * COARSE + (COARSE - 1) / 2
        x = np.arange(-HALO, -(-layout.size // COARSE) + HALO) * COARSE + (COARSE - 1) / 2
        canvas = np.zeros((4, len(y), len(x)), np.float32)
        cloud, other_cloud = (
            seen_from(offset, self.textures.cloud, y.astype(int), x.astype(int)) for offset in (shift, shift[::-1])
        )
        for kind, blob in layout.regions_across(y[0], y[-1], margin=SURROUNDINGS / self.mpp):
            reach = blob.reach + SURROUNDINGS / self.mpp
            top, bottom = np.searchsorted(y, [blob.y - reach, blob.y + reach])
            left, right = np.searchsorted(x, [blob.x - reach, blob.x + reach])
            window = canvas[:, top:bottom, left:right]
            depth = blob.depth(x[None, left:right], y[top:bottom, None]) * self.mpp
            if kind == "tissue":
                depth += 9 * np.clip(cloud[top:bottom, left:right], -2, 2)  # stays within SURROUNDINGS
            for layer in LAYERS[kind]:
                cover = np.clip((depth - layer.depth) / layer.softness + 0.5, 0, 1)
                window += cover * (np.array(layer[2:], np.float32)[:, None, None] - window)
        canvas[0] *= 1 + 0.12 * cloud
        canvas[2] *= 1 + 0.35 * other_cloud
        return canvas
