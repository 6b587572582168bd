"""Where the tissue is: a mask at thumbnail resolution, without empty glass, pen marks, black borders and dust."""

import warnings
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage.color import rgb2hsv
from skimage.filters import threshold_otsu
from skimage.morphology import disk

from kd_mil.core.checks import above, at_least
from kd_mil.core.errors import UserError
from kd_mil.slides.formats.pyramid import level_and_downsample
from kd_mil.slides.formats.reader import Slide

MAX_MASK_SIDE = 8192
"""Pixels; no slide is that large at a sensible mask resolution."""
FOREIGN_MARGIN_UM = 24.0
"""Ink and borders are widened by this much: their blurred rims are coloured too."""


@dataclass(frozen=True)
class TissueSettings:
    """How tissue is told from glass; lengths and areas in µm, so that they mean the same on every slide.

    Raises:
        UserError: a resolution that is not positive, a negative length or area, or saturation bounds out of order.
    """

    mpp: float = 8.0
    """Resolution of the mask, µm per pixel."""
    min_saturation: float = 0.05
    """Lowest threshold on saturation (0 to 1): Otsu's lies in the noise where there is glass alone."""
    max_saturation: float = 0.12
    """Highest threshold on saturation: Otsu's splits pale from strong stain where there is tissue alone."""
    max_darkness: float = 0.2
    """Areas whose brightest channel (0 to 1) stays below this are border, black ink, or were not scanned."""
    exclude_pen: bool = True
    """Drop green, blue and red ink. Switch off for stains that are green or blue themselves (trichrome, Alcian)."""
    closing_um: float = 32.0
    """Gaps up to about this width are closed."""
    max_hole_um2: float = 16_000.0
    """Enclosed holes (lumina, fat, tears) up to this area count as tissue; the default is a 256-pixel tile at 20x."""
    min_area_um2: float = 10_000.0
    """Pieces below this area are dust."""

    def __post_init__(self) -> None:
        above("tissue.mpp", self.mpp)
        for name in ("closing_um", "max_hole_um2", "min_area_um2"):
            at_least(f"tissue.{name}", getattr(self, name), 0)
        if not 0 <= self.min_saturation <= self.max_saturation <= 1:
            raise UserError(
                f"tissue.min_saturation={self.min_saturation} and tissue.max_saturation={self.max_saturation} "
                "must be in order and within 0 to 1"
            )


@dataclass(frozen=True)
class TissueMask:
    """Tissue over the scanned area of a slide."""

    mask: np.ndarray
    """(height, width) bool, True on tissue."""
    thumbnail: np.ndarray
    """(height, width, 3) uint8, the picture the mask was made from."""
    origin: tuple[int, int]
    """(x, y) of the mask's top-left corner in level-0 pixels."""
    downsample: float
    """Level-0 pixels per mask pixel."""


def find_tissue(slide: Slide, settings: TissueSettings | None = None) -> TissueMask:
    """Segment the tissue of a slide; a slide without any, or mostly black, is a warning.

    Raises:
        UserError: the mask would be huge (`tissue.mpp` too fine, or the slide's mpp wrong), or the file is damaged.
    """
    settings = settings or TissueSettings()
    x, y, width, height = slide.bounds
    _, downsample = level_and_downsample(slide.level_downsamples, max(1.0, settings.mpp / slide.mpp))
    size = (int(np.ceil(width / downsample)), int(np.ceil(height / downsample)))
    if max(size) > MAX_MASK_SIDE:
        raise UserError(
            f"slide {slide.name!r}: a tissue mask of {size[0]} x {size[1]} pixels is too large: "
            f"raise tissue.mpp={settings.mpp:g} or correct the slide's mpp={slide.mpp:g}"
        )
    mpp = slide.mpp * downsample
    thumbnail = slide.read(x, y, size, mpp)
    if (extremes(thumbnail)[0] <= 255 * settings.max_darkness).mean() > 0.5:
        warnings.warn(f"slide {slide.name!r} is mostly black: dark background, or a failed scan?", stacklevel=2)
    mask = tissue_mask(thumbnail, mpp, settings)
    if not mask.any():
        warnings.warn(f"slide {slide.name!r}: no tissue found (settings under `tissue`)", stacklevel=2)
    return TissueMask(mask, thumbnail, (x, y), downsample)


def tissue_mask(pixels: np.ndarray, mpp: float, settings: TissueSettings) -> np.ndarray:
    """Tissue (height, width) bool of an RGB picture (height, width, 3) uint8 at `mpp` µm per pixel.

    Stained tissue is more saturated than glass: Otsu's threshold on the saturation, kept within the settings' bounds,
    after ink and black areas are taken out; then gaps are closed, small holes filled and small pieces dropped.
    """
    saturation = ndimage.median_filter(saturation_of(pixels), size=3)
    foreign = foreign_areas(pixels, mpp, settings)
    clean = saturation[~foreign]
    if clean.size == 0:
        return np.zeros(saturation.shape, dtype=bool)
    threshold = np.clip(threshold_otsu(clean), settings.min_saturation, settings.max_saturation)
    mask = (saturation > threshold) & ~foreign
    reach = disk(round(settings.closing_um / mpp / 2))
    # A border value of 1 keeps tissue that runs out of the frame.
    mask = ndimage.binary_erosion(ndimage.binary_dilation(mask, reach), reach, border_value=1) & ~foreign
    holes = ndimage.binary_fill_holes(mask) & ~mask
    mask |= holes & ~pieces_of_at_least(holes, settings.max_hole_um2 / mpp**2)
    return pieces_of_at_least(mask, settings.min_area_um2 / mpp**2)


def saturation_of(pixels: np.ndarray) -> np.ndarray:
    """HSV saturation (...) float32 in [0, 1] of uint8 RGB (..., 3); black has none."""
    brightest, darkest = extremes(pixels)
    return (brightest - darkest) / np.maximum(brightest, 1).astype(np.float32)


def extremes(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Largest and smallest channel (...) of RGB (..., 3); many times faster than a maximum over the last axis."""
    red, green, blue = np.moveaxis(pixels, -1, 0)
    return np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)


def foreign_areas(pixels: np.ndarray, mpp: float, settings: TissueSettings) -> np.ndarray:
    """Black areas and ink (height, width) bool, widened; single pixels of such colours are left to the tissue."""
    foreign = extremes(pixels)[0] <= 255 * settings.max_darkness
    if settings.exclude_pen:
        foreign |= is_ink(pixels)
    areas = ndimage.binary_opening(foreign)
    return ndimage.binary_dilation(areas, disk(round(FOREIGN_MARGIN_UM / mpp)))


def is_ink(pixels: np.ndarray) -> np.ndarray:
    """Pixels (height, width) bool in the colours of green, blue and red pens.

    Haematoxylin and eosin run from violet-blue over purple to pink (hues of about 230 to 350 degrees). Green lies
    outside; blue and red ink are more saturated than the dyes. Pooled blood can pass for red ink.
    """
    ink = np.zeros(pixels.shape[:2], dtype=bool)
    saturation = saturation_of(pixels)
    # Hues below 240 degrees have more green than red: the hue is computed where it can decide, nearly nowhere.
    candidates = ((saturation > 0.1) & (pixels[..., 1] > pixels[..., 0])) | (saturation > 0.55)
    hue, saturation, _ = (rgb2hsv(pixels[candidates]) * [360, 1, 1]).T
    green = (hue > 60) & (hue < 200)
    blue = (hue >= 200) & (hue < 245) & (saturation > 0.55)
    red = ((hue < 10) | (hue > 350)) & (saturation > 0.7)
    ink[candidates] = green | blue | red
    return ink


def pieces_of_at_least(mask: np.ndarray, pixels: float) -> np.ndarray:
    """The connected pieces of `mask` (height, width) bool that hold at least `pixels` pixels."""
    labels, _ = ndimage.label(mask)
    keep = np.bincount(labels.ravel()) >= pixels
    keep[0] = False
    return keep[labels]
