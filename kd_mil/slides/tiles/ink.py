"""What on a slide is neither glass nor tissue: pen marks, black borders, areas that were not scanned."""

import numpy as np
from skimage.color import rgb2hsv


def saturation_of(pixels: np.ndarray) -> np.ndarray:
    """HSV saturation (...) float32 in [0, 1] of uint8 RGB (..., 3); black has none."""
    brightest, darkest = extremes(pixels)
    return (brightest - darkest) / np.maximum(brightest, 1).astype(np.float32)


def extremes(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Largest and smallest channel (...) of RGB (..., 3); many times faster than a maximum over the last axis."""
    red, green, blue = np.moveaxis(pixels, -1, 0)
    return np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)


def is_ink(pixels: np.ndarray) -> np.ndarray:
    """Pixels (height, width) bool in the colours of green, blue, purple and red pens.

    Haematoxylin and eosin run from violet-blue over purple to pink (hues of about 240 to 350 degrees): by the law of
    Beer and Lambert they never have more green than red, and purple of them is dark where it is saturated. Green and
    blue lie outside, faint or not; purple and red ink are more saturated than the dyes at that brightness. Pooled blood
    can pass for red ink, and pale red ink for eosin.
    """
    ink = np.zeros(pixels.shape[:2], dtype=bool)
    saturation = saturation_of(pixels)
    # Hues below 240 degrees have more green than red: the hue is computed where it can decide, nearly nowhere.
    candidates = ((saturation > 0.1) & (pixels[..., 1] > pixels[..., 0])) | (saturation > 0.55)
    hue, saturation, value = (rgb2hsv(pixels[candidates]) * [360, 1, 1]).T
    green = (hue > 60) & (hue < 200)
    blue = (hue >= 200) & (hue < 240) & (saturation > 0.55)
    faint_blue = (hue >= 200) & (hue < 220) & (saturation > 0.15) & (value > 0.6)
    faint_blue |= (hue >= 220) & (hue < 230) & (saturation > 0.25) & (value > 0.85)
    purple = (hue >= 260) & (hue < 310) & (saturation > 0.7) & (value > 0.58)
    red = ((hue < 10) | (hue > 350)) & (saturation > 0.7)
    ink[candidates] = green | blue | faint_blue | purple | red
    return ink
