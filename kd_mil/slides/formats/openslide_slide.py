"""Slides read by OpenSlide: Aperio, Hamamatsu, Leica, MIRAX, Philips, Ventana, generic tiled TIFF and others."""

from collections.abc import Mapping

import openslide
from PIL import Image

from kd_mil.core.errors import UserError
from kd_mil.slides.formats.pyramid import PyramidSlide, SlideInfo
from kd_mil.slides.formats.tiff_resolution import stated_mpp


class OpenSlideSlide(PyramidSlide):
    """A slide whose pixels come from `openslide.OpenSlide.read_region`."""

    def _open(self) -> openslide.OpenSlide:
        try:
            return openslide.OpenSlide(self.path)
        except openslide.OpenSlideError as error:
            raise UserError(
                f"slide {str(self.path)!r} cannot be opened ({error}): damaged, truncated, or no slide format"
            ) from error

    def _describe(self, handle: openslide.OpenSlide) -> SlideInfo:
        properties = dict(handle.properties)
        mpp_x = positive_number(properties, openslide.PROPERTY_NAME_MPP_X)
        mpp_y = positive_number(properties, openslide.PROPERTY_NAME_MPP_Y)
        return SlideInfo(
            level_dimensions=handle.level_dimensions,
            level_downsamples=handle.level_downsamples,
            mpp=tag_mpp(properties) if mpp_x is None or mpp_y is None else (mpp_x, mpp_y),
            magnification=positive_number(properties, openslide.PROPERTY_NAME_OBJECTIVE_POWER),
            bounds=scanned_bounds(properties, handle.dimensions),
            properties=properties,
        )

    def _read_level(
        self, handle: openslide.OpenSlide, level: int, x: int, y: int, size: tuple[int, int]
    ) -> Image.Image:
        try:
            return handle.read_region((x, y), level, size)
        except openslide.OpenSlideError as error:
            self.close()  # OpenSlide refuses every further call on this handle
            raise UserError(f"slide {str(self.path)!r} is damaged at ({x}, {y}), level {level}: {error}") from error


def positive_number(properties: Mapping[str, str], key: str) -> float | None:
    """Value of a property where it is a finite number above 0, else None."""
    try:
        value = float(properties.get(key, ""))
    except ValueError:
        return None
    return value if 0 < value < float("inf") else None


def tag_mpp(properties: Mapping[str, str]) -> tuple[float, float] | None:
    """µm per pixel by the resolution tags of a TIFF, which OpenSlide takes from some formats alone."""
    x, y = (positive_number(properties, f"tiff.{axis}Resolution") or 0.0 for axis in "XY")
    return stated_mpp(x, y, properties.get("tiff.ResolutionUnit"))


def scanned_bounds(properties: Mapping[str, str], dimensions: tuple[int, int]) -> tuple[int, int, int, int]:
    """(x, y, width, height) of the scanned area in level-0 pixels; the whole slide where the file names none."""
    keys = (
        openslide.PROPERTY_NAME_BOUNDS_X,
        openslide.PROPERTY_NAME_BOUNDS_Y,
        openslide.PROPERTY_NAME_BOUNDS_WIDTH,
        openslide.PROPERTY_NAME_BOUNDS_HEIGHT,
    )
    if not all(key in properties for key in keys):
        return (0, 0, *dimensions)
    x, y, width, height = (int(float(properties[key])) for key in keys)
    return x, y, min(width, dimensions[0] - x), min(height, dimensions[1] - y)
