"""The one reader of masks: which pixels of an image are positive, whatever program wrote it."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tifffile

from kd_mil.core.errors import UserError
from kd_mil.core.readable import readable
from kd_mil.slides.formats.image_decoding import opened_image

MAX_PIXELS = 1 << 27
"""Largest level of a pyramid that is decoded; of larger ones a coarser level is taken."""
SHAPE_TOLERANCE = 0.02
"""By which the aspect of a reduced level, a whole number of pixels wide, may differ."""
WHITE = 250
"""Grey level from which on a pixel of an 8-bit mask is white, compression and smoothing allowed for."""
LABELS_UP_TO, PICTURE_FROM = 0.05, 0.2
"""Share of white among the pixels that are not 0: object numbers stay below the first, black-and-white masks with grey
rims above the second."""


class Mask(NamedTuple):
    """Positive pixels of an image."""

    positive: np.ndarray
    """(height, width) bool."""
    downsample: float
    """Pixels of the file's finest level for one of these."""
    unknown: np.ndarray
    """(height, width) bool, where nobody has said; positive nowhere there."""


def read_mask(
    path: Path, values: Sequence[int] = (), setting: str = "mask_values", unknown_values: Sequence[int] = ()
) -> Mask:
    """Read a mask of one channel: integers of any size and byte order, floats, palettes, pyramidal TIFFs.

    Args:
        path: The image.
        values: Values that are positive; empty = as `positive_pixels` tells.
        setting: What a user sets to name the values, for messages.
        unknown_values: Values of pixels about which nobody has said anything; empty = everything is known.

    Raises:
        UserError: not an image, damaged, in colour, too large, or of values that need naming.
    """
    if path.suffix.lower() in (".tif", ".tiff"):
        labels, downsample = read_tiff_labels(path)
    else:
        labels, downsample = read_label_image(path), 1.0
    unknown = np.isin(labels, list(unknown_values))
    labels = np.where(unknown, 0, labels).astype(labels.dtype) if unknown.any() else labels
    if values:
        return Mask(np.isin(labels, list(values)) & ~unknown, downsample, unknown)
    lossy = path.suffix.lower() in (".jpg", ".jpeg")
    try:
        return Mask(labels > 127 if lossy else positive_pixels(labels), downsample, unknown)
    except ValueError as error:
        raise UserError(f"mask {str(path)!r} {error}: set {setting}=[...] to the values that are positive") from error


def positive_pixels(labels: np.ndarray) -> np.ndarray:
    """Which pixels (height, width) of a mask are positive: where it is more than half white, or bears a label.

    A mask is black and white, with grey rims perhaps, if its largest value lies in 250..255 and such values make up a
    fifth or more of what is not 0: then pixels above 127 are positive. Masks whose white is 1.0 are told alike. Any
    other mask holds labels, or numbers of objects, and pixels above 0 are positive. A JPEG can hold no labels.

    Raises:
        ValueError: it could be either, or the values are no labels (negative fractions, NaN).
    """
    if labels.dtype.kind == "f":
        labels = whole_numbers(labels)
    if labels.dtype == bool or not labels.any():
        return labels.astype(bool)
    if not WHITE <= labels.max() <= 255:
        return labels > 0
    share = np.count_nonzero(labels >= WHITE) / np.count_nonzero(labels > 0)
    if LABELS_UP_TO < share < PICTURE_FROM:
        raise ValueError(f"holds values up to {labels.max()}, which may be numbers of objects or grey levels")
    return labels > (127 if share >= PICTURE_FROM else 0)


def whole_numbers(values: np.ndarray) -> np.ndarray:
    """Integers stored as floats, as integers; shares in [0, 1] as grey levels 0 to 255.

    Raises:
        ValueError: neither.
    """
    if not np.isfinite(values).all():
        raise ValueError("holds NaN or infinite values")
    if (values == np.rint(values)).all():
        return values.astype(np.int64)
    if values.min() >= 0 and values.max() <= 1:
        return np.rint(values * 255).astype(np.uint8)
    raise ValueError(f"holds fractions from {values.min():g} to {values.max():g}")


def read_label_image(path: Path) -> np.ndarray:
    """Label values (height, width) of an image, whatever their integer type; of a palette, the indices.

    Raises:
        UserError: not an image, damaged, or in colour.
    """
    with opened_image(path, str(path)) as image:
        return one_channel(np.asarray(image), path)


def one_channel(labels: np.ndarray, path: Path) -> np.ndarray:
    """The values (height, width) of a mask; of several equal channels, the first.

    Raises:
        UserError: channels that differ.
    """
    if labels.ndim == 2:
        return labels
    if labels.shape[-1] < 3 or (labels[..., :3] != labels[..., :1]).any():
        raise UserError(f"mask {str(path)!r} has {labels.shape[-1]} channels: give one channel of label values")
    return labels[..., 0]


def read_tiff_labels(path: Path) -> tuple[np.ndarray, float]:
    """Label values (height, width) of a TIFF, and how many pixels of its finest level each stands for.

    Of a pyramid (pages or SubIFDs of one shape) the finest level of at most `MAX_PIXELS` is read.

    Raises:
        UserError: damaged, in colour, or without a level that is small enough.
    """
    with readable(path), tifffile.TiffFile(path) as file:
        full = file.pages.first
        aspect = full.imagewidth / full.imagelength
        pages = [page.aspage() for page in [*file.pages, *(full.pages or ())]]
        levels = [page for page in pages if abs(page.imagewidth / page.imagelength / aspect - 1) <= SHAPE_TOLERANCE]
        small = [page for page in levels if page.imagewidth * page.imagelength <= MAX_PIXELS]
        if not small:
            raise UserError(
                f"mask {str(path)!r} of {full.imagewidth} x {full.imagelength} pixels has no level of at most "
                f"{MAX_PIXELS / 1e6:.0f} megapixels: reduce it, or make it a pyramid"
            )
        page = max(small, key=lambda level: level.imagewidth)
        labels = one_channel(np.asarray(page.asarray()), path)
        if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
            labels = ~labels if labels.dtype == bool else np.iinfo(labels.dtype).max - labels
    return labels.astype(labels.dtype.newbyteorder("=")), full.imagewidth / page.imagewidth
