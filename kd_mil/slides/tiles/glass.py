"""The colour of glass, and the saturation that tells stain from it: tinted glass, faded stain."""

import numpy as np
from skimage.color import rgb2hsv
from skimage.filters import threshold_otsu

GLASS_SHARE = 0.02
"""Least share of the picture that a colour must have to be glass."""
GLASS_BRIGHTNESS = 0.6
"""Least value (0 to 1) of glass."""
TINT_SATURATION = (0.04, 0.4)
"""Glass below the first is as good as grey, colours above the second are no glass."""
TINT_HUES = (20.0, 200.0)
"""Degrees: yellow to cyan, hues that neither haematoxylin nor eosin has."""
FADED_SHARE = 0.002
"""Least share of the picture that faded stain must have."""
FADED_DISTANCE = 4.0
"""Standard deviations between faded stain and glass; the halves of one group of normal noise lie 2.7 apart."""
LEAST_SPREAD = 1e-3
"""Standard deviation of saturation that rounding alone makes."""


def balanced(pixels: np.ndarray) -> np.ndarray:
    """A picture (height, width, 3) uint8 with its glass made grey, where that has a tint that no stain has.

    Glass is the brightest colour that a fair share of the picture has. Yellowed or greenish glass is told from tissue
    by its hue; a pink or violet tint is not, and left alone.
    """
    red, green, blue = np.moveaxis(pixels >> 3, -1, 0).astype(np.int32)
    codes = (red << 10) | (green << 5) | blue
    counts = np.bincount(codes.ravel(), minlength=1 << 15)
    frequent = np.flatnonzero(counts >= max(1, GLASS_SHARE * codes.size))
    if not len(frequent):
        return pixels
    brightest = max(frequent.tolist(), key=lambda code: (code >> 10) + (code >> 5 & 31) + (code & 31))
    glass = np.median(pixels[codes == brightest], axis=0)
    hue, saturation, value = rgb2hsv(glass / 255)
    tinted = TINT_SATURATION[0] < saturation < TINT_SATURATION[1] and value > GLASS_BRIGHTNESS
    if not (tinted and TINT_HUES[0] < hue * 360 < TINT_HUES[1]):
        return pixels
    return np.clip(np.rint(pixels * (glass.max() / glass)), 0, 255).astype(np.uint8)


def saturation_threshold(saturation: np.ndarray, lowest: float, highest: float) -> float:
    """Threshold on the saturation (N,) of glass and tissue: Otsu's, kept between two bounds.

    It falls below the lower one, to the middle between glass and stain, where the two are clearly apart and both near
    grey: faded stain.
    """
    threshold = float(threshold_otsu(saturation))
    if threshold < lowest:
        threshold = min(lowest, middle_of_groups(saturation, threshold) or lowest)
    return min(threshold, highest)


def middle_of_groups(saturation: np.ndarray, threshold: float) -> float | None:
    """Middle between the means of the two sides of a threshold on the saturation (N,); None where the sides are one
    group of pixels cut in two."""
    above = saturation > threshold
    if not FADED_SHARE * len(saturation) <= above.sum() < len(saturation):
        return None
    stain, glass = saturation[above], saturation[~above]
    spread = max(float(np.sqrt((stain.var() + glass.var()) / 2)), LEAST_SPREAD)
    apart = stain.mean() - glass.mean() > FADED_DISTANCE * spread
    return float(stain.mean() + glass.mean()) / 2 if apart else None
