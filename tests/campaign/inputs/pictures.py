"""Slides drawn for the campaign: a square of tissue on glass whose tiles can be counted without looking.

At 1 um per pixel a picture measures 1024 x 1024, its tissue lies from (256, 256) to (768, 768): 64 tiles of 64 pixels.
"""

from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

SIDE, LOW, HIGH, TILE = 1024, 256, 768, 64
TILES = ((HIGH - LOW) // TILE) ** 2
TILING = ("tiling.tile_size=64", "tiling.magnification=null", "tiling.mpp=1.0")
GLASS, STAIN = (243, 242, 244), (190, 120, 175)


def tissue(
    mpp: float = 1.0,
    glass: tuple[int, int, int] = GLASS,
    stain: tuple[int, int, int] = STAIN,
    box: tuple[int, int, int, int] = (LOW, LOW, HIGH, HIGH),
    size: tuple[int, int] = (SIDE, SIDE),
    noise: int = 12,
) -> np.ndarray:
    """Picture (height, width, 3) uint8 of `size` (width, height) um, with stain in `box` (um), at `mpp`."""
    width, height = (round(side / mpp) for side in size)
    pixels = np.empty((height, width, 3), np.int16)
    pixels[:] = glass
    left, top, right, bottom = (round(side / mpp) for side in box)
    generator = np.random.default_rng(5)
    inside = pixels[top:bottom, left:right]
    inside[:] = np.array(stain) + generator.integers(-noise, noise + 1, inside.shape, dtype=np.int16)
    return pixels.clip(0, 255).astype(np.uint8)


def tiled(path: Path, pixels: np.ndarray, levels: int = 1, **form: Any) -> None:
    """A tiled TIFF with `levels` levels, each half as large."""
    form = {"tile": (256, 256), "photometric": "rgb", "metadata": None, "compression": "deflate"} | form
    with tifffile.TiffWriter(path, bigtiff=form.pop("bigtiff", False), byteorder=form.pop("byteorder", None)) as file:
        for level in range(levels):
            file.write(pixels[:: 2**level, :: 2**level], **(form | ({"subfiletype": 1} if level else {})))


def aperio(path: Path, pixels: np.ndarray, facts: str = "AppMag = 20|MPP = 0.5", levels: int = 2) -> None:
    """A slide as Aperio's scanners write it; `facts` end the description."""
    size = f"{pixels.shape[1]}x{pixels.shape[0]} [0,0 {pixels.shape[1]}x{pixels.shape[0]}] (256x256) JPEG/RGB Q=80"
    tiled(path, pixels, levels, description=f"Aperio Image Library v11.2.1\n{size}|{facts}")


def striped(path: Path, pixels: np.ndarray, mpp: float | None = None, unit: str = "centimeter", **form: Any) -> None:
    """A TIFF in strips, its resolution in the tags."""
    per_unit = {"centimeter": 10_000, "inch": 25_400}
    if mpp is not None:
        form |= {"resolution": (per_unit[unit] / mpp,) * 2, "resolutionunit": unit}
    tifffile.imwrite(path, pixels, **({"metadata": None, "compression": "deflate", "rowsperstrip": 64} | form))


def picture(path: Path, pixels: np.ndarray, **form: Any) -> None:
    Image.fromarray(pixels).save(path, **form)


def good(path: Path, mpp: float = 1.0) -> None:
    """The companion that must be done whatever lies beside it: Aperio, with resolution."""
    aperio(path, tissue(mpp), f"AppMag = {10 / mpp:g}|MPP = {mpp:g}", levels=1)
