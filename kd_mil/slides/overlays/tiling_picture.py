"""A picture of what was tiled: thumbnail, outline of the tissue, tiles kept and rejected, scale bar, counts.

Drawn with Pillow in some hundredths of a second, for it is made of every slide.
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from kd_mil.slides.overlays.scale_bar import bar_length, length_text

Color = tuple[int, int, int]
KEPT, REJECTED, OUTLINE, INK, PAPER = (0, 90, 200), (235, 105, 0), (0, 0, 0), (30, 30, 30), (255, 255, 255)
KEPT_OPACITY = 40
"""Of the fill of a kept tile, of 255: the tissue shows through."""
TEXT_SHARE = 1 / 65
"""Height of the text as a share of the longer side."""
LEAST_TEXT = 11
LEAST_WIDTH = 640
"""Pixels; narrower pictures get a margin beside them, for the words below."""


class TilingPicture(NamedTuple):
    """What is drawn; positions in level-0 pixels."""

    thumbnail: np.ndarray
    """(h, w, 3) uint8."""
    origin: tuple[float, float]
    """(x, y) of the thumbnail's top-left corner."""
    downsample: float
    """Level-0 pixels per pixel of the thumbnail."""
    mask: np.ndarray
    """(height, width) bool tissue over the same area, at any resolution."""
    kept: np.ndarray
    """(N, 2) (x, y) of the top-left corners."""
    rejected: np.ndarray
    """(M, 2) likewise."""
    tile_size: int
    """Side of a tile."""
    mpp: float
    """µm per level-0 pixel."""
    lines: Sequence[str]
    """What is written below."""


def draw_tiling(picture: TilingPicture) -> Image.Image:
    """The picture, RGB, words below."""
    height, width = picture.thumbnail.shape[:2]
    canvas = Image.fromarray(picture.thumbnail).convert("RGB")
    _draw_tiles(canvas, picture)
    edge = _edge(picture.mask, (height, width))
    pixels = np.array(canvas)
    pixels[edge] = OUTLINE
    canvas = Image.fromarray(pixels)
    size = max(LEAST_TEXT, round(max(width, height) * TEXT_SHARE))
    _draw_bar(canvas, picture.mpp * picture.downsample, size)
    return _with_words(canvas, picture.lines, size)


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """Matplotlib's own font; that of Pillow has no µ."""
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), size)


def _draw_tiles(canvas: Image.Image, picture: TilingPicture) -> None:
    draw = ImageDraw.Draw(canvas, "RGBA")
    side = picture.tile_size / picture.downsample
    for corners, color, fill in (
        (picture.rejected, REJECTED, None),
        (picture.kept, KEPT, (*KEPT, KEPT_OPACITY)),
    ):
        for x, y in ((np.asarray(corners, float).reshape(-1, 2) - picture.origin) / picture.downsample).tolist():
            box = (round(x), round(y), max(round(x), round(x + side) - 1), max(round(y), round(y + side) - 1))
            draw.rectangle(box, outline=color, fill=fill)


def _edge(mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Pixels (height, width) bool on the rim of a mask that is brought to that shape."""
    scaled = np.asarray(Image.fromarray(mask).resize(shape[::-1], Image.Resampling.NEAREST))
    thickness = 1 + max(shape) // 1000
    return scaled & ~ndimage.binary_erosion(scaled, iterations=thickness, border_value=1)


def _draw_bar(canvas: Image.Image, um_per_pixel: float, size: int) -> None:
    """A scale bar in the lower left corner, on a plate of its own."""
    length = bar_length(canvas.width, um_per_pixel)
    if length == 0:
        return
    font, text = _font(size), length_text(length)
    draw = ImageDraw.Draw(canvas, "RGBA")
    bar, thick, gap = length / um_per_pixel, max(2, size // 5), size // 2
    wide, high = max(bar, draw.textlength(text, font)), size * 1.3 + thick
    left, bottom = 2 * gap, canvas.height - 2 * gap
    draw.rectangle((left - gap, bottom - high - gap, left + wide + gap, bottom + gap), fill=(*PAPER, 215))
    draw.rectangle((left, bottom - thick, left + bar, bottom), fill=INK)
    draw.text((left, bottom - thick - size * 1.3), text, fill=INK, font=font)


def _with_words(canvas: Image.Image, lines: Sequence[str], size: int) -> Image.Image:
    """The picture with a legend and lines of text below, wrapped to its width."""
    font, width = _font(size), max(canvas.width, LEAST_WIDTH)
    measure = ImageDraw.Draw(canvas)
    rows = [row for line in lines for row in _wrapped(line, lambda text: measure.textlength(text, font), width - size)]
    step = round(size * 1.45)
    whole = Image.new("RGB", (width, canvas.height + step * (len(rows) + 1) + size), PAPER)
    whole.paste(canvas)
    draw, y = ImageDraw.Draw(whole), canvas.height + size // 2
    x = size / 2
    for text, color in (("tile kept", KEPT), ("tile rejected", REJECTED), ("tissue", OUTLINE)):
        draw.rectangle((x, y + size * 0.2, x + size, y + size * 1.1), outline=color, width=max(2, size // 6))
        draw.text((x + 1.4 * size, y), text, fill=INK, font=font)
        x += 3 * size + draw.textlength(text, font)
    for number, row in enumerate(rows, start=1):
        draw.text((size / 2, y + number * step), row, fill=INK, font=font)
    return whole


def _wrapped(line: str, length: Callable[[str], float], width: float) -> list[str]:
    rows = [""]
    for word in line.split(" "):
        longer = f"{rows[-1]} {word}".strip()
        if rows[-1] and length(longer) > width:
            rows.append(word)
        else:
            rows[-1] = longer
    return rows
