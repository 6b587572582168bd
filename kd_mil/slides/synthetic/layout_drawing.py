"""Draws where everything lies on a synthetic slide: nests, glands, vessels, lymphoid aggregates, single cells.

Lengths in the constants are micrometres.
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
import shapely
from scipy.spatial import KDTree

from kd_mil.core.errors import UserError
from kd_mil.slides.synthetic.layout import FIRST_HARMONIC, Blob, CellKind, Cells, Layout, RegionKind

Truth = Literal["negative", "mixed", "hard"]
"""What a slide holds: no tumour; easy nests and hard cells; hard cells alone."""

HARD_RADIUS_UM = 24.0
"""The truth outline of a hard cell is a disc of this radius: 44 % of a 64 µm tile, so above the usual 25 %."""

TRIES = 100
ATTEMPTS = 20


class RegionPlan(NamedTuple):
    """How many regions of a kind, how large, how irregular."""

    kind: RegionKind
    per_mm2: tuple[float, float]
    """Range of the number per square millimetre of slide."""
    radius_um: tuple[float, float]
    waviness: float
    clearance_um: float = 6.0
    """Its share of the gap to its neighbours; tumour needs more, for the outlines around single cells."""


NESTS = RegionPlan("nest", (2.0, 5.0), (45, 100), 0.16, clearance_um=20)
CLUSTERS = RegionPlan("cytoplasm", (1.5, 4.0), (50, 80), 0.15, clearance_um=20)
BENIGN = (
    RegionPlan("lymphoid", (1.0, 3.0), (45, 85), 0.12),
    RegionPlan("fat", (0.0, 1.6), (60, 100), 0.12),
    RegionPlan("gland", (2.0, 7.0), (32, 60), 0.08),
    RegionPlan("vessel", (2.0, 6.0), (12, 28), 0.15),
)


def draw_layout(rng: np.random.Generator, size: int, mpp: float, truth: Truth) -> Layout:
    """Draw a slide of size x size pixels.

    Raises:
        UserError: no room for tumour on a slide so small.
    """
    for _ in range(ATTEMPTS):
        drawing = LayoutDrawing(rng, size, mpp)
        if drawing.nest_sites and drawing.cluster_sites:
            return drawing.draw(truth)
    raise UserError(f"no room for a tumour on a synthetic slide of {size} px at {mpp} µm per pixel: make it larger")


class LayoutDrawing:
    """Draws a layout from one random generator; regions do not overlap and lie inside the tissue.

    Room for tumour is set aside on every slide, negative ones too: else the benign structures would give the label
    away.
    """

    def __init__(self, rng: np.random.Generator, size: int, mpp: float) -> None:
        self.rng, self.layout = rng, Layout(size, mpp)
        self.placed = np.empty((0, 3))
        self.cell_groups: list[Cells] = []
        x, y = size * rng.uniform(0.46, 0.54, 2)
        self.tissue = self._blob(x, y, size * rng.uniform(0.36, 0.41), 0.12)
        self.layout.regions.append(("tissue", self.tissue))
        self.nest_sites = list(self._place(NESTS, max(1, self._count(NESTS.per_mm2))))
        self.cluster_sites = list(self._place(CLUSTERS, max(1, self._count(CLUSTERS.per_mm2))))

    def draw(self, truth: Truth) -> Layout:
        """Fill the sites with what the truth asks for, then everything else around them."""
        hard_sites: list[Blob] = []
        if truth == "mixed":
            self._grow_nests()
            hard_sites = self.cluster_sites
        elif truth == "hard":
            hard_sites = self.nest_sites + self.cluster_sites
        tumour_cells = self._scatter_hard_cells(hard_sites)
        for plan in BENIGN:
            for blob in self._place(plan, self._count(plan.per_mm2)):
                self._fill(plan.kind, blob)
        self._fill_stroma(tumour_cells)
        groups = zip(*self.cell_groups, strict=True)
        self.layout.cells = Cells(*(np.concatenate(group) for group in groups))
        return self.layout

    def _pixels(self, micrometres: float) -> float:
        return micrometres / self.layout.mpp

    def _count(self, per_mm2: tuple[float, float]) -> int:
        area = (self.layout.size * self.layout.mpp / 1000) ** 2
        return round(self.rng.uniform(*per_mm2) * area)

    def _blob(self, x: float, y: float, radius: float, waviness: float) -> Blob:
        waves = np.arange(FIRST_HARMONIC, 8)
        amplitudes = self.rng.normal(size=len(waves)) * waviness * (FIRST_HARMONIC / waves) ** 1.5
        return Blob(x, y, radius, np.clip(amplitudes, -waviness, waviness), self.rng.uniform(0, 2 * np.pi, len(waves)))

    def _place(self, plan: RegionPlan, count: int) -> Iterator[Blob]:
        """Up to `count` blobs of a kind that keep clear of each other and of the tissue's edge."""
        clearance = self._pixels(plan.clearance_um)
        for _ in range(TRIES * (count + 1)):
            if count == 0:
                return
            x, y = self.rng.uniform(0, self.layout.size, 2)
            radius = self._pixels(self.rng.uniform(*plan.radius_um))
            to_neighbours = np.hypot(self.placed[:, 0] - x, self.placed[:, 1] - y) - self.placed[:, 2]
            room = to_neighbours.min(initial=self.tissue.depth(x, y)) - clearance
            if room > radius and room > (blob := self._blob(x, y, radius, plan.waviness)).reach:
                self.placed = np.vstack([self.placed, [x, y, blob.reach + clearance]])
                count -= 1
                yield blob

    def _grow_nests(self) -> None:
        for blob in self.nest_sites:
            self._fill("nest", blob)
            self.layout.easy.append(shapely.Polygon(blob.outline()))

    def _scatter_hard_cells(self, sites: list[Blob]) -> np.ndarray:
        """Put single tumour cells, far from each other, into the stroma of the sites; returns their centres (N, 2)."""
        groups = [self._inside(blob, spacing_um=34, keep=0.8) for blob in sites]
        positions = np.concatenate([np.empty((0, 2)), *groups])
        self._add_cells(CellKind.TUMOUR, positions)
        for x, y in positions:
            body = self._blob(x, y, self._pixels(self.rng.uniform(9, 12)), 0.1)
            self.layout.regions.append(("cytoplasm", body))
        discs = shapely.buffer(shapely.points(positions), self._pixels(HARD_RADIUS_UM))
        outlines = shapely.get_exterior_ring(shapely.get_parts(shapely.union_all(discs)))
        self.layout.hard = list(shapely.polygons(outlines[~shapely.is_empty(outlines)]))
        return positions

    def _fill(self, kind: RegionKind, blob: Blob) -> None:
        """Add a region and the nuclei that belong to it."""
        self.layout.regions.append((kind, blob))
        match kind:
            case "nest":
                self._add_cells(CellKind.TUMOUR, self._inside(blob, spacing_um=12.5, margin_um=4.5, keep=0.96))
            case "lymphoid":
                self._add_cells(CellKind.LYMPHOCYTE, self._inside(blob, spacing_um=6.6, fade_um=20, keep=0.95))
            case "gland":
                self._line(blob, CellKind.EPITHELIAL, spacing_um=6.0, depth_um=5.0, turn=0)
            case "vessel":
                self._line(blob, CellKind.FIBROBLAST, spacing_um=16, depth_um=2, turn=np.pi / 2)
            case "fat":
                for x, y in self._inside(blob, spacing_um=37, jitter=0.06, keep=1):
                    cell = self._blob(x, y, self._pixels(self.rng.uniform(17.0, 18.5)), 0.04)
                    self.layout.regions.append(("fat cell", cell))
                    self._line(cell, CellKind.FIBROBLAST, spacing_um=120, depth_um=-2, turn=np.pi / 2)

    def _add_cells(self, kind: CellKind, positions: np.ndarray, angles: np.ndarray | None = None) -> None:
        count = len(positions)
        angles = self.rng.uniform(0, np.pi, count) if angles is None else angles
        self.cell_groups.append(Cells(positions, np.full(count, int(kind)), angles))

    def _inside(
        self,
        blob: Blob,
        spacing_um: float,
        keep: float,
        margin_um: float = 0.0,
        fade_um: float = 1.0,
        jitter: float = 0.3,
    ) -> np.ndarray:
        """Points of a jittered grid that lie `margin_um` inside; towards the edge they thin out over `fade_um`."""
        corner = np.array([blob.x, blob.y])
        points = self._jittered_grid(corner - blob.reach, corner + blob.reach, spacing_um, jitter)
        depth = blob.depth(points[:, 0], points[:, 1])
        density = keep * np.clip((depth - self._pixels(margin_um)) / self._pixels(fade_um), 0, 1)
        return points[self.rng.random(len(points)) < density]

    def _line(self, blob: Blob, kind: CellKind, spacing_um: float, depth_um: float, turn: float) -> None:
        """Nuclei side by side along the edge; `turn` is their angle to the ray from the centre."""
        count = max(1, round(2 * np.pi * blob.radius / self._pixels(spacing_um)))
        angles = (np.arange(count) + self.rng.uniform(-0.2, 0.2, count)) * 2 * np.pi / count
        depth = self._pixels(depth_um) * self.rng.uniform(0.7, 1.3, count)
        self._add_cells(kind, blob.ring(angles, depth), angles + turn)

    def _jittered_grid(self, low: np.ndarray, high: np.ndarray, spacing_um: float, jitter: float = 0.3) -> np.ndarray:
        """(N, 2) points of a hexagonal grid, each moved by up to `jitter` of the spacing."""
        step = self._pixels(spacing_um)
        columns, rows = np.arange(low[0], high[0], step), np.arange(low[1], high[1], step * 0.866)
        x, y = np.meshgrid(columns, rows)
        x[1::2] += step / 2
        points = np.stack([x.ravel(), y.ravel()], axis=1)
        return points + self.rng.uniform(-jitter, jitter, points.shape) * step

    def _fill_stroma(self, tumour_cells: np.ndarray) -> None:
        """Fibroblasts and single lymphocytes wherever there is tissue and nothing else."""
        low, high = np.zeros(2), np.full(2, float(self.layout.size))
        for kind, spacing_um, keep in ((CellKind.FIBROBLAST, 17.0, 0.5), (CellKind.LYMPHOCYTE, 30.0, 0.3)):
            points = self._jittered_grid(low, high, spacing_um)
            points = points[self.rng.random(len(points)) < keep]
            points = points[self._is_free_stroma(points, tumour_cells)]
            along_fibres = np.full(len(points), np.nan) if kind == CellKind.FIBROBLAST else None
            self._add_cells(kind, points, along_fibres)

    def _is_free_stroma(self, points: np.ndarray, tumour_cells: np.ndarray) -> np.ndarray:
        free = self.tissue.depth(points[:, 0], points[:, 1]) > self._pixels(14)
        tree = KDTree(points)
        for kind, blob in self.layout.regions:
            if kind not in ("tissue", "cytoplasm"):
                near = np.array(tree.query_ball_point([blob.x, blob.y], blob.reach), int)
                free[near] &= blob.depth(*points[near].T) < -self._pixels(3)
        for near_cell in tree.query_ball_point(tumour_cells, self._pixels(11)) if len(tumour_cells) else []:
            free[near_cell] = False
        return free
