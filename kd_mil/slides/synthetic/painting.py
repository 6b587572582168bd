"""Paint a synthetic layout as H&E: dye concentrations from region layers, fibre texture and stamped nuclei.

Everything is painted strip by strip, so a slide of any size needs the memory of a strip. Textures are periodic and
drawn once; each slide sees them from another offset.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import fft
from scipy.ndimage import fourier_gaussian

from kd_mil.slides.synthetic.layout import CellKind, Layout, RegionKind
from kd_mil.slides.synthetic.stain import Stain

COARSE = 4
"""Region layers are painted on every fourth pixel and enlarged."""
HALO = 2
SURROUNDINGS = 24.0
"""Micrometres around a region that its layers may touch."""
TEXTURE_SIZE = 1024
FIBRE_STEPS = 14


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


class Textures:
    """Periodic textures (1024, 1024) float32 with mean 0 and standard deviation 1."""

    def __init__(self, rng: np.random.Generator, mpp: float) -> None:
        unit = 1 / mpp  # pixels per micrometre
        self.cloud = _noise(rng, 40 * unit)
        self.grain = _standardised(_noise(rng, 0.5 * unit) + 0.7 * _noise(rng, 1.5 * unit))
        self.fibre_angle = np.arctan2(_noise(rng, 45 * unit), _noise(rng, 45 * unit)) / 2
        streaks = _noise(rng, 0.5 * unit) + 1.5 * _noise(rng, 1.5 * unit)
        self.fibre = _along(self.fibre_angle, streaks, step=max(1.0, unit))


def _noise(rng: np.random.Generator, sigma: float) -> np.ndarray:
    """Smooth periodic noise; `sigma` in pixels."""
    spectrum = fft.rfft2(rng.standard_normal((TEXTURE_SIZE, TEXTURE_SIZE), dtype=np.float32))
    return _standardised(fft.irfft2(fourier_gaussian(spectrum, sigma, n=TEXTURE_SIZE)))


def _standardised(texture: np.ndarray) -> np.ndarray:
    return ((texture - texture.mean()) / texture.std()).astype(np.float32)


def _along(angle: np.ndarray, noise: np.ndarray, step: float) -> np.ndarray:
    """Line integral convolution: smear the noise along a field of directions that have no sign (radians)."""
    rows, columns = np.indices(noise.shape)
    directions = np.exp(1j * angle).astype(np.complex64)
    total = noise.copy()
    for sign in (1, -1):
        place, heading = (columns + 1j * rows).astype(np.complex64), sign * directions
        for _ in range(FIBRE_STEPS):
            place += step * heading
            y, x = (np.rint(axis).astype(np.int32) % TEXTURE_SIZE for axis in (place.imag, place.real))
            here = y * TEXTURE_SIZE + x
            total += noise.take(here)
            turned = directions.take(here)
            heading = np.where((turned * heading.conj()).real < 0, -turned, turned)
    return _standardised(total)


def _seen_from(shift: np.ndarray, texture: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """(len(rows), len(columns)) of the texture as a slide sees it whose corner lies at `shift` (x, y)."""
    return texture.take((rows + shift[1]) % TEXTURE_SIZE, axis=0).take((columns + shift[0]) % TEXTURE_SIZE, axis=1)


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
        chromatin = _noise(rng, 0.55 / mpp)
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
            eosin += fibre * _seen_from(shift, self.textures.fibre, rows, columns)
            speckle = _seen_from(shift, self.textures.grain, rows, columns)
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
            _seen_from(offset, self.textures.cloud, y.astype(int), x.astype(int)) for offset in (shift, shift[::-1])
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
