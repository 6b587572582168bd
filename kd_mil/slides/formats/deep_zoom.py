"""Slides of all formats as `openslide.deepzoom` cuts them: square tiles of a pyramid whose levels halve."""

import io
import threading
from contextlib import nullcontext
from typing import Any

import openslide
from openslide.deepzoom import DeepZoomGenerator
from PIL import Image

from kd_mil.slides.formats.image_decoding import on_white
from kd_mil.slides.formats.openslide_slide import OpenSlideSlide
from kd_mil.slides.formats.pyramid import PyramidSlide, level_and_downsample

TILE_SIDE = 256
BEYOND = "#f4f4f4"
"""Colour of what lies outside of the slide."""
QUALITY = 80
"""Of JPEG tiles."""


class DeepZoom:
    """Tiles of a slide by level, column and row; level `levels - 1` has the slide's own pixels.

    Threads may share it: OpenSlide allows that, of other formats one tile is read at a time.

    >>> zoom = DeepZoom(open_slide("case_1.svs"))  # doctest: +SKIP
    >>> jpeg = zoom.tile(zoom.levels - 1, 0, 0)  # doctest: +SKIP

    Args:
        slide: of any format, or a picture.
    """

    def __init__(self, slide: PyramidSlide | Image.Image) -> None:
        picture = isinstance(slide, Image.Image)
        source = openslide.ImageSlide(slide) if picture else _Pyramid(slide)  # type: ignore[arg-type]
        self._generator = DeepZoomGenerator(source, tile_size=TILE_SIDE, overlap=0, limit_bounds=False)
        self._lock: Any = nullcontext() if isinstance(slide, OpenSlideSlide) else threading.Lock()

    @property
    def levels(self) -> int:
        """How many there are; level 0 is one pixel."""
        return self._generator.level_count

    def tile(self, level: int, column: int, row: int) -> bytes | None:
        """A tile as JPEG, `BEYOND` where it leaves the slide; None where there is no such tile.

        Raises:
            UserError: the slide cannot be decoded there.
        """
        if not 0 <= level < self.levels:
            return None
        columns, rows = self._generator.level_tiles[level]
        if not (0 <= column < columns and 0 <= row < rows):
            return None
        with self._lock:
            found = self._generator.get_tile(level, (column, row))
        whole = Image.new("RGB", (TILE_SIDE, TILE_SIDE), BEYOND)
        whole.paste(on_white(found))
        buffer = io.BytesIO()
        whole.save(buffer, "JPEG", quality=QUALITY)
        return buffer.getvalue()


class _Pyramid(openslide.AbstractSlide):
    """What `openslide.deepzoom` asks of a slide, by any of our readers."""

    def __init__(self, slide: PyramidSlide) -> None:
        super().__init__()
        self._slide = slide

    @classmethod
    def detect_format(cls, filename: object) -> None:
        """Nothing is opened by this class."""

    def close(self) -> None:
        self._slide.close()

    @property
    def level_count(self) -> int:
        return len(self._slide.level_dimensions)

    @property
    def level_dimensions(self) -> tuple[tuple[int, int], ...]:
        return self._slide.level_dimensions

    @property
    def level_downsamples(self) -> tuple[float, ...]:
        return self._slide.level_downsamples

    @property
    def properties(self) -> dict[str, str]:
        return self._slide.properties

    @property
    def associated_images(self) -> dict[str, Image.Image]:
        return {}

    @property
    def color_profile(self) -> None:
        return None

    def get_best_level_for_downsample(self, downsample: float) -> int:
        return level_and_downsample(self._slide.level_downsamples, downsample)[0]

    def read_region(self, location: tuple[int, int], level: int, size: tuple[int, int]) -> Image.Image:
        return self._slide._read_level(self._slide._handle(), level, *location, size).convert("RGBA")
