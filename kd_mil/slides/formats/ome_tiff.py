"""OME-TIFF as Bio-Formats, QuPath and tifffile write it: resolution in its XML, pyramid in sub-IFDs.

Source: https://docs.openmicroscopy.org/ome-model/6.3.1/ome-tiff/specification.html
"""

from collections import OrderedDict
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError

import defusedxml
import numpy as np
import tifffile
from defusedxml.ElementTree import fromstring
from PIL import Image

from kd_mil.core.errors import UserError
from kd_mil.slides.formats.pyramid import READER_BYTES, PyramidSlide, SlideInfo, framed
from kd_mil.slides.formats.tiff_resolution import RESOLUTION_UNIT, X_RESOLUTION, Y_RESOLUTION, stated_mpp

TIFF_SUFFIXES = (".tif", ".tiff")
UNITS = {
    **{"m": 1e6, "dm": 1e5, "cm": 1e4, "mm": 1e3, "µm": 1.0, "μm": 1.0, "nm": 1e-3, "Å": 1e-4, "pm": 1e-6},
    **{"in": 25_400.0, "ft": 304_800.0, "pt": 25_400 / 72, "mil": 25.4, "thou": 25.4, "li": 25_400 / 12},
}
"""Micrometres of the units of length of OME; `pixel` and `reference frame` say nothing of the slide."""
COLOUR_AXES = ("YXS", "SYX", "CYX")
"""Interleaved and planar samples, and one plane for each colour."""
COLOUR_NAMES = ({"r", "red"}, {"g", "green"}, {"b", "blue"})
"""Of channels in planes of their own; three planes without names may as well be three fluorescent dyes."""


def is_ome_tiff(path: Path) -> bool:
    """Whether a file is a TIFF that begins with the XML of OME; False where it cannot be read."""
    if path.suffix.lower() not in TIFF_SUFFIXES:
        return False
    try:
        with tifffile.TiffFile(path) as file:
            return bool(file.is_ome)
    except Exception:  # whatever it is, the reader of other TIFFs will say it
        return False


class OmeTiff:
    """An open file: the levels of its largest picture.

    Raises:
        UserError: damaged, no 8-bit RGB, a stack of planes, or pixels in other files.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.file = tifffile.TiffFile(path)
            series = max(self.file.series, key=lambda one: one.keyframe.imagewidth * one.keyframe.imagelength)
            self.xml = _root(self.file.ome_metadata)
            levels = [(level.axes, level.dtype, list(level.pages)) for level in series.levels]
        except Exception as error:  # tifffile has no base class of its errors
            raise UserError(f"slide {str(path)!r} cannot be opened ({error}): damaged or truncated OME-TIFF") from error
        page = series.keyframe
        self.pixels = _pixels_of(self.xml, page.imagewidth, page.imagelength)
        for axes, dtype, pages in levels:
            self._check(axes, dtype, pages)
        self.levels: list[list[Any]] = [pages for _, _, pages in levels]
        self._cache: OrderedDict[tuple[int, int, int], np.ndarray] = OrderedDict()
        self._cached_bytes = 0

    def _check(self, axes: str, dtype: Any, pages: list[Any]) -> None:
        if axes not in COLOUR_AXES or dtype != np.uint8 or (axes == "CYX" and not self._names_colours()):
            raise UserError(
                f"slide {str(self.path)!r} is no RGB picture of 8 bits a channel (axes {axes}, {dtype}): export it as "
                "one; planes of their own must be named red, green and blue"
            )
        if any(page is None or page.parent is not self.file for page in pages):
            raise UserError(f"slide {str(self.path)!r} keeps its pixels in further files: export it as one file")

    def _names_colours(self) -> bool:
        channels = [] if self.pixels is None else [part for part in self.pixels if _name(part) == "Channel"]
        names = [channel.get("Name", "").strip().lower() for channel in channels]
        return len(names) == 3 and all(name in known for name, known in zip(names, COLOUR_NAMES, strict=True))

    def read(self, level: int, left: int, top: int, width: int, height: int) -> np.ndarray:
        """Pixels (height, width, 3 or 4) uint8 of an area inside a level."""
        planes = [self._page(level, number, (left, top, width, height)) for number in range(len(self.levels[level]))]
        return np.concatenate(planes, axis=2)

    def _page(self, level: int, number: int, area: tuple[int, int, int, int]) -> np.ndarray:
        """Pixels (height, width, samples) of one page, put together from its tiles or strips."""
        frame = self.levels[level][number].keyframe
        left, top, width, height = area
        side = (frame.tilewidth, frame.tilelength) if frame.is_tiled else (frame.imagewidth, frame.rowsperstrip)
        columns, rows = -(-frame.imagewidth // side[0]), -(-frame.imagelength // side[1])
        result = np.full((height, width, frame.samplesperpixel), 255, np.uint8)
        is_planar = frame.planarconfig == tifffile.PLANARCONFIG.SEPARATE and frame.samplesperpixel > 1
        for plane in range(frame.samplesperpixel if is_planar else 1):
            samples = slice(plane, plane + 1) if is_planar else slice(None)
            for row in range(top // side[1], (top + height - 1) // side[1] + 1):
                for column in range(left // side[0], (left + width - 1) // side[0] + 1):
                    segment = self._segment(level, number, (plane * rows + row) * columns + column)
                    x, y = column * side[0], row * side[1]
                    _copy(segment, result[..., samples], (x - left, y - top))
        return result

    def _segment(self, level: int, number: int, index: int) -> np.ndarray:
        """Tile or strip (height, width, samples); the last ones are kept."""
        key = (level, number, index)
        if key not in self._cache:
            page = self.levels[level][number]
            handle, count = self.file.filehandle, page.databytecounts[index]
            handle.seek(page.dataoffsets[index])
            data = handle.read(count)
            if len(data) < count:
                raise ValueError(f"{count - len(data)} bytes are missing")
            decoded = page.keyframe.decode(data, index, jpegtables=page.jpegtables)[0] if count else None
            self._cache[key] = np.empty((0, 0, 1), np.uint8) if decoded is None else decoded[0]
            self._cached_bytes += self._cache[key].nbytes
        self._cache.move_to_end(key)
        while self._cached_bytes > READER_BYTES and len(self._cache) > 1:
            self._cached_bytes -= self._cache.popitem(last=False)[1].nbytes
        return self._cache[key]

    def close(self) -> None:
        self.file.close()


class OmeTiffSlide(PyramidSlide):
    """A slide whose pixels come from the tiles or strips of an OME-TIFF, decoded by tifffile."""

    def _open(self) -> OmeTiff:
        return OmeTiff(self.path)

    def _describe(self, handle: OmeTiff) -> SlideInfo:
        sizes = tuple((pages[0].keyframe.imagewidth, pages[0].keyframe.imagelength) for pages in handle.levels)
        width, height = sizes[0]
        downsamples = [1.0, *((width / across + height / down) / 2 for across, down in sizes[1:])]
        objective = None if handle.xml is None else handle.xml.find(".//{*}Objective")
        power = 0.0 if objective is None else _number(objective.get("NominalMagnification"))
        stated = None if handle.pixels is None else physical_size(handle.pixels)
        return SlideInfo(
            level_dimensions=sizes,
            level_downsamples=tuple(downsamples),
            mpp=stated or _tag_mpp(handle.levels[0][0].keyframe),
            magnification=power or None,
            bounds=(0, 0, width, height),
            properties={} if handle.pixels is None else dict(handle.pixels.attrib),
        )

    def _read_level(self, handle: OmeTiff, level: int, x: int, y: int, size: tuple[int, int]) -> Image.Image:
        downsample = self.level_downsamples[level]
        corner = round(x / downsample), round(y / downsample)
        try:
            return framed(corner, size, self.level_dimensions[level], lambda *area: handle.read(level, *area))
        except Exception as error:  # of imagecodecs, which has an error of its own for every compression
            raise UserError(f"slide {str(self.path)!r} is damaged at ({x}, {y}), level {level}: {error}") from error


def physical_size(pixels: Element) -> tuple[float, float] | None:
    """µm per pixel (across, down) as an element `Pixels` says; None where it does not, or counts in pixels."""
    sizes = []
    for axis in "XY":
        unit = UNITS.get(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        sizes.append(_number(pixels.get(f"PhysicalSize{axis}")) * (unit or 0.0))
    return (sizes[0], sizes[1]) if min(sizes) > 0 else None


def _tag_mpp(page: Any) -> tuple[float, float] | None:
    values = []
    for code in (X_RESOLUTION, Y_RESOLUTION):
        numerator, denominator = page.tags[code].value if code in page.tags else (0, 1)
        values.append(numerator / denominator if denominator else 0.0)
    unit = page.tags[RESOLUTION_UNIT].value if RESOLUTION_UNIT in page.tags else 2
    return stated_mpp(values[0], values[1], int(unit))


def _pixels_of(xml: Element | None, width: int, height: int) -> Element | None:
    """The element of the picture of this size."""
    found = [] if xml is None else xml.findall(".//{*}Pixels")
    size = {"SizeX": str(width), "SizeY": str(height)}
    return next((one for one in found if size.items() <= one.attrib.items()), None)


def _root(text: str | None) -> Element | None:
    try:
        return None if text is None else fromstring(text)
    except (ParseError, defusedxml.DefusedXmlException):
        return None


def _number(text: str | None) -> float:
    """A finite number above 0, else 0."""
    try:
        value = float(text or 0)
    except ValueError:
        return 0.0
    return value if 0 < value < float("inf") else 0.0


def _name(element: Element) -> str:
    return str(element.tag).rpartition("}")[2]


def _copy(segment: np.ndarray, target: np.ndarray, corner: tuple[int, int]) -> None:
    """Put what of a segment lies within the target (height, width, samples) there; its corner may lie outside."""
    x, y = corner
    left, top = max(x, 0), max(y, 0)
    part = segment[top - y : target.shape[0] - y, left - x : target.shape[1] - x]
    target[top : top + part.shape[0], left : left + part.shape[1]] = part
