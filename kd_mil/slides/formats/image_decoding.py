"""The one decoder of image files: 8-bit pixels as RGB over white."""

import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, UnidentifiedImageError

from kd_mil.core.errors import UserError, one_line

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
EIGHT_BIT_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
"""Pillow's names of pixel types that RGB holds without a choice of scale."""

MOST_PIXELS = 2**29 // 3
"""Of an image that is decoded whole: half a GiB as RGB, whatever limit Pillow has been given."""
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # of half of that

DAMAGE = (
    *(OSError, EOFError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError),
    *(RuntimeError, struct.error, zlib.error),
)
"""What Pillow raises on damaged files."""
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
    """An image file with Pillow's many errors turned into `UserError`, those of decoding included.

    Raises:
        UserError: no image, damaged, or of more than `MOST_PIXELS`, by its header: nothing is decoded before.
    """
    try:
        with Image.open(source) as image:
            if image.width * image.height > MOST_PIXELS:
                raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels")
            yield image
    except FileNotFoundError as error:
        raise UserError(f"{name}: no such image") from error
    except Image.DecompressionBombError as error:
        raise UserError(f"{name}: too large for a plain image ({error}): make it a pyramidal TIFF") from error
    except UnidentifiedImageError as error:
        raise UserError(f"{name}: not a readable image: damaged, or of a kind to convert to 8-bit RGB") from error
    except DAMAGE as error:
        raise UserError(f"{name}: not a readable image ({one_line(error)}): damaged") from error


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
