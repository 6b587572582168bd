"""Plain images as slides of one level: PNG, JPEG, and TIFFs that no slide reader knows."""

from PIL import Image

from kd_mil.slides.formats.image_decoding import decode_rgb
from kd_mil.slides.formats.pyramid import PyramidSlide, SlideInfo


class ImageSlide(PyramidSlide):
    """An image held whole in memory, once per process; it states no resolution, so `mpp` must be given."""

    def _open(self) -> Image.Image:
        return decode_rgb(self.path)

    def _describe(self, handle: Image.Image) -> SlideInfo:
        return SlideInfo((handle.size,), (1.0,), None, None, (0, 0, *handle.size), {})

    def _read_level(self, handle: Image.Image, level: int, x: int, y: int, size: tuple[int, int]) -> Image.Image:
        region = Image.new("RGB", size, "white")
        region.paste(handle, (-x, -y))
        return region
