"""The one decoder of image files: 8-bit pixels as RGB over white."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

from kd_mil.core.errors import UserError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
EIGHT_BIT_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
"""Pillow's names of pixel types that RGB holds without a choice of scale."""

Source = str | Path | IO[bytes]


def decode_rgb(source: Source, name: str | None = None) -> Image.Image:
    """Decode an image (of several pages, the first) to RGB; transparent pixels are blended with white.

    Args:
        source: path or open binary file.
        name: stands for the image in messages; None = the source.

    Raises:
        UserError: not an image, damaged, too large, or with more than 8 bits a channel: which value of a 16-bit file
            is white would be a guess. (Of 16-bit colour PNGs, Pillow keeps the upper 8 bits.)
    """
    name = str(source) if name is None else name
    with opened_image(source, name) as image:
        if image.mode not in EIGHT_BIT_MODES:
            raise UserError(f"{name}: pixels of type {image.mode}: convert the image to 8-bit RGB")
        return on_white(image)


@contextmanager
def opened_image(source: Source, name: str) -> Iterator[Image.Image]:
    """An image file with Pillow's many errors turned into `UserError`, those of decoding included."""
    try:
        with Image.open(source) as image:
            yield image
    except Image.DecompressionBombError as error:
        raise UserError(f"{name}: too large for a plain image ({error}): make it a pyramidal TIFF") from error
    except (OSError, EOFError, SyntaxError, ValueError, TypeError, LookupError) as error:
        raise UserError(f"{name}: not a readable image ({error})") from error


def on_white(image: Image.Image) -> Image.Image:
    """Flatten any 8-bit image to RGB over white."""
    if "A" not in image.getbands() and "transparency" not in image.info:
        return image.convert("RGB")
    image = image if image.mode == "RGBA" else image.convert("RGBA")
    if is_opaque(image):
        return image.convert("RGB")
    canvas = Image.new("RGB", image.size, "white")
    canvas.paste(image, mask=image)
    return canvas


def is_opaque(image: Image.Image) -> bool:
    """Whether no pixel of an RGBA image is transparent."""
    return bool(np.asarray(image)[..., 3].min() == 255)
