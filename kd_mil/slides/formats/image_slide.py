"""Plain images as slides of one level: PNG, JPEG, and TIFFs that no slide reader knows."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from kd_mil.core.errors import UserError
from kd_mil.slides.formats.pyramid import PyramidSlide, SlideInfo, on_white

IMAGE_EXTENSIONS = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
EIGHT_BIT_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")


class ImageSlide(PyramidSlide):
    """An image held whole in memory, once per process; it states no resolution, so `mpp` must be given."""

    def _open(self) -> Image.Image:
        return read_image(self.path)

    def _describe(self, handle: Image.Image) -> SlideInfo:
        return SlideInfo((handle.size,), (1.0,), None, None, (0, 0, *handle.size), {})

    def _read_level(self, handle: Image.Image, level: int, x: int, y: int, size: tuple[int, int]) -> Image.Image:
        region = Image.new("RGB", size, "white")
        region.paste(handle, (-x, -y))
        return region


def read_image(path: Path) -> Image.Image:
    """Decode the first page of an image file to RGB over white.

    Raises:
        UserError: not an image, damaged, more than 8 bits a channel, or too large to be held whole.
    """
    with opened_image(path) as image:
        if image.mode not in EIGHT_BIT_MODES:
            raise UserError(f"image {str(path)!r} has pixel type {image.mode}: convert it to 8-bit RGB")
        return on_white(image)


def read_label_image(path: Path) -> np.ndarray:
    """Decode a mask to its label values (height, width), whatever their integer type; of a palette, the indices.

    Raises:
        UserError: not an image, damaged, or in colour.
    """
    with opened_image(path) as image:
        labels = np.asarray(image)
    if labels.ndim != 2:
        raise UserError(f"mask {str(path)!r} has {labels.shape[-1]} channels: give one channel of label values")
    return labels


@contextmanager
def opened_image(path: Path) -> Iterator[Image.Image]:
    """An image file with Pillow's many errors turned into UserError, those of decoding included."""
    try:
        with Image.open(path) as image:
            yield image
    except Image.DecompressionBombError as error:
        raise UserError(f"image {str(path)!r} is too large for a plain image: make it a pyramidal TIFF") from error
    except (OSError, EOFError, SyntaxError, ValueError, TypeError, LookupError) as error:
        raise UserError(f"image {str(path)!r} cannot be read ({error}): damaged, or not an image") from error
