"""Slides read by fastslide, an optional package: nearly the same pixels in less time."""

from typing import Any

import numpy as np
from PIL import Image

from kd_mil.core.errors import UserError
from kd_mil.slides.formats.pyramid import PyramidSlide, SlideInfo, framed

CACHE_BYTES = 32 * 1024**2
"""Decoded tiles kept for neighbours, per slide and process; OpenSlide's default, while fastslide's own is none."""


class FastSlideSlide(PyramidSlide):
    """A slide whose pixels come from `fastslide.FastSlide.read_region`.

    fastslide counts in pixels of the level and stops at the slide's edge; here positions are level-0 pixels and the
    outside is white, as with OpenSlide.

    Pixels equal OpenSlide's with lossless compression, and within one grey level with JPEG of full colour. With JPEG of
    halved colour (4:2:0) the two enlarge the colour differently, by some grey levels at sharp edges. At a position that
    is no whole pixel of a coarser level, OpenSlide interpolates and fastslide takes the nearest pixel.
    """

    def _open(self) -> Any:
        try:
            import fastslide
        except ImportError as error:
            raise UserError("backend=fastslide needs a package: `pip install fastslide`, or take openslide") from error
        try:
            return fastslide.FastSlide.from_file_path(self.path, cache=CACHE_BYTES)
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f"slide {str(self.path)!r} cannot be opened by fastslide ({error}): damaged, or try backend=openslide"
            ) from error

    def _describe(self, handle: Any) -> SlideInfo:
        (x, y), (width, height) = handle.bounds
        magnification = float(handle.properties.get("magnification") or 0)
        return SlideInfo(
            level_dimensions=tuple(handle.level_dimensions),
            level_downsamples=tuple(handle.level_downsamples),
            mpp=tuple(handle.mpp) if min(handle.mpp) > 0 else None,
            magnification=magnification if magnification > 0 else None,
            bounds=(x, y, width, height),
            properties={key: str(value) for key, value in handle.properties.items()},
        )

    def _read_level(self, handle: Any, level: int, x: int, y: int, size: tuple[int, int]) -> Image.Image:
        downsample = self.level_downsamples[level]

        def read(left: int, top: int, width: int, height: int) -> np.ndarray:
            pixels: np.ndarray = np.asarray(handle.read_region((left, top), level, (width, height)).numpy())
            return pixels[..., :3]

        try:
            return framed((round(x / downsample), round(y / downsample)), size, self.level_dimensions[level], read)
        except (RuntimeError, ValueError) as error:
            raise UserError(f"slide {str(self.path)!r} is damaged at ({x}, {y}), level {level}: {error}") from error
