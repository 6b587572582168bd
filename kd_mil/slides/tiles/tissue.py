"""Where the tissue is: a mask at thumbnail resolution, without empty glass, pen marks, black borders and dust."""

import warnings
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import ndimage
from skimage.morphology import disk

from kd_mil.core.checks import above, at_least, share
from kd_mil.core.errors import UserError
from kd_mil.slides.formats.pyramid import level_and_downsample
from kd_mil.slides.formats.reader import Slide
from kd_mil.slides.tiles.glass import balanced, saturation_threshold
from kd_mil.slides.tiles.ink import extremes, is_ink, saturation_of

MAX_MASK_SIDE = 8192
"""Pixels; no slide is that large at a sensible mask resolution."""
FOREIGN_MARGIN_UM = 24.0
"""Ink and borders are widened by this much: their blurred rims are coloured too."""
MOSTLY, LITTLE_TISSUE, MUCH_TISSUE = 0.5, 0.002, 0.95
"""Shares of the scanned area that are worth a word: of black above the first, of tissue outside the others."""
MUCH_INK = 0.25
"""Share of ink among ink and tissue that is worth a word."""


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
        for name in ("min_saturation", "max_saturation", "max_darkness"):
            share(f"tissue.{name}", getattr(self, name))
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
    doubts: tuple[str, ...] = ()
    """What makes it doubtful; see `doubts_about`."""


def find_tissue(slide: Slide, settings: TissueSettings | None = None) -> TissueMask:
    """Segment the tissue of a slide; what makes the mask doubtful is a warning each, and kept with it.

    Raises:
        UserError: the mask would be huge (`tissue.mpp` too fine, or the slide's mpp wrong), or the file is damaged.
    """
    settings = settings or TissueSettings()
    x, y = slide.bounds[:2]
    size, downsample = mask_frame(slide, settings.mpp)
    mpp = slide.mpp * downsample
    thumbnail = slide.read(x, y, size, mpp)
    found = segmented(thumbnail, mpp, settings)
    doubts = doubts_about(found, settings)
    for doubt in doubts:
        warnings.warn(f"slide {slide.name!r}: {doubt}", stacklevel=2)
    return TissueMask(found.mask, thumbnail, (x, y), downsample, doubts)


def mask_frame(slide: Slide, mpp: float) -> tuple[tuple[int, int], float]:
    """(width, height) of a mask over the scanned area at about `mpp` µm per pixel, and its level-0 pixels per pixel.

    Raises:
        UserError: the mask would be huge.
    """
    _, downsample = level_and_downsample(slide.level_downsamples, max(1.0, mpp / slide.mpp))
    size = (int(np.ceil(slide.bounds[2] / downsample)), int(np.ceil(slide.bounds[3] / downsample)))
    if max(size) > MAX_MASK_SIDE:
        raise UserError(
            f"slide {slide.name!r}: a tissue mask of {size[0]} x {size[1]} pixels is too large: "
            f"raise tissue.mpp={mpp:g} or correct the slide's mpp={slide.mpp:g}"
        )
    return size, downsample


def tissue_mask(pixels: np.ndarray, mpp: float, settings: TissueSettings) -> np.ndarray:
    """Tissue (height, width) bool of an RGB picture (height, width, 3) uint8 at `mpp` µm per pixel."""
    return segmented(pixels, mpp, settings).mask


class Segmented(NamedTuple):
    """A tissue mask, and what tells how far to trust it."""

    mask: np.ndarray
    """(height, width) bool."""
    threshold: float
    """Saturation above which a pixel was stained."""
    black: float
    """Share of the picture."""
    ink: float
    """Share of the picture that was taken out for its colour."""


def segmented(pixels: np.ndarray, mpp: float, settings: TissueSettings) -> Segmented:
    """Segment an RGB picture (height, width, 3) uint8 at `mpp` µm per pixel.

    Stained tissue is more saturated than glass: a threshold on the saturation, after the picture is balanced to its
    glass, and ink and black areas are taken out; then gaps are closed, small holes filled and small pieces dropped. Ink
    and black areas stay out, within tissue too.
    """
    pixels = balanced(pixels)
    saturation = ndimage.median_filter(saturation_of(pixels), size=3)
    dark = extremes(pixels)[0] <= 255 * settings.max_darkness
    ink = is_ink(pixels) & ~dark if settings.exclude_pen else np.zeros_like(dark)
    foreign = widened(dark | ink, mpp)
    clean = saturation[~foreign]
    threshold, mask = settings.max_saturation, np.zeros_like(dark)
    if clean.size:
        threshold = saturation_threshold(clean, settings.min_saturation, settings.max_saturation)
        mask = tidied((saturation > threshold) & ~foreign, foreign, mpp, settings)
    inked = ndimage.binary_opening(ink)
    return Segmented(mask, threshold, float(dark.mean()), float(inked.mean()))


def tidied(mask: np.ndarray, foreign: np.ndarray, mpp: float, settings: TissueSettings) -> np.ndarray:
    """A mask (height, width) with gaps closed, small holes filled and small pieces dropped, and nothing foreign."""
    reach = disk(round(settings.closing_um / mpp / 2))
    # A border value of 1 keeps tissue that runs out of the frame.
    mask = ndimage.binary_erosion(ndimage.binary_dilation(mask, reach), reach, border_value=1) & ~foreign
    known = mask | foreign
    holes = ndimage.binary_fill_holes(known) & ~known
    mask |= holes & ~pieces_of_at_least(holes, settings.max_hole_um2 / mpp**2)
    return pieces_of_at_least(mask, settings.min_area_um2 / mpp**2)


def widened(foreign: np.ndarray, mpp: float) -> np.ndarray:
    """Areas (height, width) bool of such pixels, with a margin; single pixels are left to the tissue."""
    return ndimage.binary_dilation(ndimage.binary_opening(foreign), disk(round(FOREIGN_MARGIN_UM / mpp)))


def doubts_about(found: Segmented, settings: TissueSettings) -> tuple[str, ...]:
    """What makes a mask doubtful, and which settings help: nobody looks at every slide of a thousand."""
    share, doubts = float(found.mask.mean()), []
    if found.black > MOSTLY:
        doubts.append("mostly black: dark background, or a failed scan?")
    if share == 0:
        doubts.append("no tissue found (settings under `tissue`)")
    elif share < LITTLE_TISSUE:
        doubts.append(f"nearly nothing ({share:.2%}) counts as tissue: pale stain? lower tissue.min_saturation")
    elif share > MUCH_TISSUE:
        doubts.append(f"nearly everything ({share:.0%}) counts as tissue: tinted glass? raise tissue.max_saturation")
    if share > 0 and found.threshold < settings.min_saturation:
        doubts.append(f"the stain is faint: the threshold of saturation fell to {found.threshold:.3f}")
    if found.ink > MUCH_INK * (found.ink + share):
        doubts.append("much of what is coloured counts as ink: blue or green stain? tissue=special_stain keeps it")
    return tuple(doubts)


def pieces_of_at_least(mask: np.ndarray, pixels: float) -> np.ndarray:
    """The connected pieces of `mask` (height, width) bool that hold at least `pixels` pixels."""
    labels, _ = ndimage.label(mask)
    keep = np.bincount(labels.ravel()) >= pixels
    keep[0] = False
    return keep[labels]
