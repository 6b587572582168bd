"""Plain images as slides of one level: PNG, JPEG, and TIFFs that no slide reader knows."""

from PIL import Image

from kd_mil.slides.formats.image_decoding import decode_rgb
from kd_mil.slides.formats.pyramid import PyramidSlide, SlideInfo
from kd_mil.slides.formats.tiff_resolution import tiff_mpp


class ImageSlide(PyramidSlide):
    """An image held whole in memory, once per process; the tags of a TIFF may state its resolution."""

    def _open(self) -> Image.Image:
        return decode_rgb(self.path)

    def _describe(self, handle: Image.Image) -> SlideInfo:
        return SlideInfo((handle.size,), (1.0,), tiff_mpp(self.path), None, (0, 0, *handle.size), {})

    @property
    def resident_bytes(self) -> int:
        return 3 * self.dimensions[0] * self.dimensions[1]

    def _read_level(self, handle: Image.Image, level: int, x: int, y: int, size: tuple[int, int]) -> Image.Image:
        region = Image.new("RGB", size, "white")
        region.paste(handle, (-x, -y))
        return region
