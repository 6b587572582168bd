"""Tiles as coordinates: a grid by resolution, not by level, kept where there is tissue."""

import warnings
from dataclasses import dataclass

import numpy as np

from kd_mil.core.checks import above, share
from kd_mil.core.errors import UserError
from kd_mil.slides.coverage import mask_coverage
from kd_mil.slides.formats.pyramid import LEVEL_TOLERANCE, level_and_downsample
from kd_mil.slides.formats.reader import Slide
from kd_mil.slides.tiles.tissue import TissueMask

NOMINAL_MAGNIFICATIONS = ((0.16, 80), (0.2, 60), (0.3, 40), (0.6, 20), (1.2, 10), (2.4, 5))
"""(µm per pixel below which, magnification): TRIDENT's table, so that its files and ours agree."""
LEAST_TISSUE = 1e-6
"""Area fraction that is more than rounding."""


@dataclass(frozen=True)
class TilingSettings:
    """Size and resolution of the tiles. Exactly one of `mpp` and `magnification` is given.

    `magnification` counts from the slide's nominal one (`nominal_magnification`): 20x is every second pixel of a 40x
    slide, whether its pixels measure 0.23 or 0.25 µm, so native levels are hit. `mpp` is the same length on all slides.

    Raises:
        UserError: both or neither of the two, or a value out of range.
    """

    tile_size: int = 256
    """Side of a tile in pixels at the target resolution."""
    mpp: float | None = None
    """Target resolution, µm per pixel."""
    magnification: float | None = None
    """Target resolution, nominal magnification."""
    overlap: int = 0
    """Pixels at the target resolution that neighbours share."""
    min_tissue: float = 0.25
    """Least tissue area fraction of a tile; 0 keeps every tile that touches tissue."""
    upsample: bool = False
    """Allow a target finer than the slide's level 0, whose pixels are then interpolated."""

    def __post_init__(self) -> None:
        if (self.mpp is None) == (self.magnification is None):
            raise UserError(
                f"tiling.mpp={self.mpp} and tiling.magnification={self.magnification}: give one of them, the other null"
            )
        for name in ("tile_size", "overlap"):
            if not isinstance(getattr(self, name), int):
                raise UserError(f"tiling.{name}={getattr(self, name)} must be a whole number of pixels")
        for name, value in (("mpp", self.mpp), ("magnification", self.magnification), ("tile_size", self.tile_size)):
            if value is not None:
                above(f"tiling.{name}", value)
        if not 0 <= self.overlap < self.tile_size:
            raise UserError(f"tiling.overlap={self.overlap} must be at least 0 and below tile_size={self.tile_size}")
        share("tiling.min_tissue", self.min_tissue)


@dataclass(frozen=True)
class Tiles:
    """The tiles of one slide: read them with `slide.read(x, y, (tile_size, tile_size), mpp)`."""

    coords: np.ndarray
    """(N, 2) int64 (x, y) of the top-left corners in level-0 pixels; row by row, left to right."""
    tissue: np.ndarray
    """(N,) float32, tissue area fraction."""
    tile_size: int
    """Side in pixels as read."""
    tile_size_level0: int
    """Side in level-0 pixels."""
    mpp: float
    """Resolution at which to read, µm per pixel."""
    overlap: int
    """Pixels as read that neighbours share."""
    slide_name: str
    slide_dimensions: tuple[int, int]
    """(width, height) of level 0."""
    slide_mpp: float
    magnification: float | None = None
    """Nominal magnification asked for; None where a resolution was."""
    bounds_offset: tuple[int, int] | None = (0, 0)
    """(x, y) of the scanned area in level-0 pixels; None where a file of an earlier version does not say."""
    doubts: tuple[str, ...] = ()
    """What makes them doubtful: see `tissue.doubts_about`."""
    reason: str = ""
    """Why there are none, where it is not for want of tissue alone."""
    tissue_share: float | None = None
    """Share of the scanned area that is tissue; None where a file of an earlier version does not say."""
    rejected: int | None = None
    """Tiles that touch tissue and have too little of it; None likewise."""

    @property
    def remarks(self) -> tuple[str, ...]:
        """All that is worth a word, one line each."""
        return (*self.doubts, self.reason) if self.reason else self.doubts

    @property
    def level0_magnification(self) -> float:
        """Nominal magnification of level 0."""
        return nominal_magnification(self.slide_mpp)

    @property
    def target_magnification(self) -> float:
        """Nominal magnification of the tiles: the one asked for, whether a level is 4 or 4.0003 times coarser."""
        if self.magnification is not None:
            return tidy(self.magnification)
        return tidy(self.level0_magnification * self.slide_mpp / self.mpp)

    def attributes(self, saved_to: str) -> dict[str, str | int | float]:
        """Attributes of the `coords` data set as TRIDENT names them; `saved_to` is the job folder."""
        return {
            "patch_size": self.tile_size,
            "patch_size_level0": self.tile_size_level0,
            "level0_magnification": self.level0_magnification,
            "target_magnification": self.target_magnification,
            "overlap": self.overlap,
            "name": self.slide_name,
            "savetodir": saved_to,
            "level0_width": self.slide_dimensions[0],
            "level0_height": self.slide_dimensions[1],
        }


def nominal_magnification(mpp: float) -> float:
    """Magnification usually written on a slide of this resolution: 40 for 0.25 µm per pixel, 20 for 0.5.

    Told from the pixel size and not from the objective: Camelyon16's second scanner says 20x at 0.23 µm per pixel.
    """
    return next((magnification for limit, magnification in NOMINAL_MAGNIFICATIONS if mpp < limit), tidy(10 / mpp))


def tidy(number: float) -> float:
    """An int where the number is one but for the rounding of a resolution, else the number itself."""
    return round(number) if abs(number - round(number)) < 1e-5 * number else number


def tile_grid(slide: Slide, tissue: TissueMask, settings: TilingSettings) -> Tiles:
    """Lay a grid over the scanned area and keep the tiles with enough tissue.

    As in TRIDENT the grid starts at the corner, and the last column and row may reach beyond the slide, where pixels
    read white. (Unlike there, `overlap` holds between the first two tiles as well, and tiles come row by row.)
    A slide smaller than a tile has one tile, which reaches beyond it, if there is enough tissue. What lies beyond the
    slide is no tissue. A slide without enough tissue anywhere gives no tiles and a warning.

    Raises:
        UserError: a target finer than level 0 without `upsample`.
    """
    _, downsample = level_and_downsample(slide.level_downsamples, target_downsample(slide, settings))
    warn_of_contradiction(slide)
    size, overlap = round(settings.tile_size * downsample), round(settings.overlap * downsample)
    coords, fractions = grid_with_tissue(slide, tissue, size, overlap)
    keep = fractions >= max(settings.min_tissue, LEAST_TISSUE)
    reason = ""
    if not keep.any():
        reason = reason_for_none(slide, size, fractions, settings)
    if reason:
        warnings.warn(f"slide {slide.name!r}: {reason}", stacklevel=2)
    return Tiles(
        coords=coords[keep],
        tissue=fractions[keep],
        tile_size=settings.tile_size,
        tile_size_level0=size,
        mpp=round(slide.mpp * downsample, 6),
        overlap=settings.overlap,
        slide_name=slide.name,
        slide_dimensions=slide.dimensions,
        slide_mpp=slide.mpp,
        magnification=settings.magnification,
        bounds_offset=slide.bounds[:2],
        doubts=tissue.doubts,
        reason=reason,
        tissue_share=round(float(tissue.mask.mean()), 6),
        rejected=int(np.count_nonzero(~keep & (fractions >= LEAST_TISSUE))),
    )


def reason_for_none(slide: Slide, size: int, fractions: np.ndarray, settings: TilingSettings) -> str:
    """Why no tile of `size` level-0 pixels was kept; empty where there is no tissue on a slide that could have some.

    Args:
        slide: the slide.
        size: side of a tile.
        fractions: (N,) tissue of all tiles.
        settings: which were not met.
    """
    width, height = slide.bounds[2:]
    reasons = []
    if fractions.max() > 0:
        reasons.append(f"no tile has tiling.min_tissue={settings.min_tissue}, at most {fractions.max():.2f}")
    if size > min(width, height):
        reasons.append(f"smaller than a tile ({width} x {height} level-0 pixels, a tile has {size} x {size})")
    return "; ".join(reasons)


def rejected_tiles(slide: Slide, tissue: TissueMask, tiles: Tiles, settings: TilingSettings) -> np.ndarray:
    """Corners (M, 2) int64 of the tiles of the same grid that touch tissue and have too little of it."""
    size = tiles.tile_size_level0
    overlap = round(tiles.overlap * size / tiles.tile_size)
    coords, fractions = grid_with_tissue(slide, tissue, size, overlap)
    return coords[(fractions >= LEAST_TISSUE) & (fractions < settings.min_tissue)]


def target_downsample(slide: Slide, settings: TilingSettings) -> float:
    """Level-0 pixels per tile pixel that the settings ask for on this slide.

    Raises:
        UserError: below 1 by more than the tolerance, without `upsample`.
    """
    nominal = nominal_magnification(slide.mpp)
    if settings.magnification is not None:
        asked, downsample = f"{settings.magnification:g}x", nominal / settings.magnification
    else:
        assert settings.mpp is not None  # the settings hold one of the two
        asked, downsample = f"mpp={settings.mpp:g}", settings.mpp / slide.mpp
    if downsample < 1 - LEVEL_TOLERANCE and not settings.upsample:
        raise UserError(
            f"slide {slide.name!r} has {slide.mpp:g} µm per pixel ({nominal:g}x), coarser than the tiling's {asked}: "
            "choose a coarser tiling, or tiling.upsample=true to interpolate"
        )
    return downsample


def warn_of_contradiction(slide: Slide) -> None:
    """Warn where the objective power a slide states does not go with its pixel size."""
    if slide.magnification is not None and not 1 / 1.6 < slide.magnification * slide.mpp / 10 < 1.6:
        warnings.warn(
            f"slide {slide.name!r} says {slide.magnification:g}x but {slide.mpp:g} µm per pixel, which is "
            f"{nominal_magnification(slide.mpp):g}x: the pixel size is used",
            stacklevel=3,
        )


def grid_with_tissue(slide: Slide, tissue: TissueMask, size: int, overlap: int) -> tuple[np.ndarray, np.ndarray]:
    """Corners (N, 2) of all tiles over the scanned area, sides in level-0 pixels, and their tissue fractions (N,)."""
    x, y, width, height = slide.bounds
    coords = grid_of(slide.bounds, size, max(1, size - overlap))
    end = (x + width, y + height)
    return coords, mask_coverage(tissue.mask, tissue.origin, tissue.downsample, coords, size, end)


def grid_of(bounds: tuple[int, int, int, int], size: int, step: int) -> np.ndarray:
    """Corners (N, 2) int64 of square tiles over bounds (x, y, width, height), row by row."""
    x, y, width, height = bounds
    columns, rows = np.meshgrid(np.arange(x, x + width, step), np.arange(y, y + height, step))
    return np.stack([columns.ravel(), rows.ravel()], axis=1).astype(np.int64)
