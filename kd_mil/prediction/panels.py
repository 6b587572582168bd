"""The panel of a slide: what its page and the viewer show of it, in one file that a browser reads from a disk.

A page that was opened from a disk may run scripts beside it, and read no other files: so the file is a script that
calls `panel` with one JSON object. Arrays in it are little-endian float32, deflated (RFC 1950) and in base64.
"""

import base64
import io
import json
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from kd_mil.core.atomic import atomic_path
from kd_mil.core.errors import UserError

FOLDER = "panels"
"""Where panels lie in an output folder."""
BEFORE, AFTER = "panel(", ");\n"
QUALITY = 85
"""Of the JPEG pictures."""


class TilePicture(NamedTuple):
    """A tile that is shown by itself."""

    x: int
    y: int
    """Top-left corner in level-0 pixels."""
    score: float
    pixels: np.ndarray | None = None
    """(h, w, 3) uint8; None where the slide is not at hand."""


@dataclass(frozen=True)
class Layer:
    """What one role says of the places of a slide."""

    name: str
    label: str
    """What its numbers are: `student: tile probability of tumour`."""
    threshold: float
    """From which on a place is positive."""
    grid: np.ndarray
    """(rows, columns) float32 in [0, 1] by cell, NaN where nothing was looked at."""
    scores: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))
    """(N,) float32 by tile; empty where there are no tiles."""
    highest: tuple[TilePicture, ...] = ()
    lowest: tuple[TilePicture, ...] = ()


@dataclass(frozen=True)
class Panel:
    """A slide or an image, and what was predicted of it. Positions are level-0 pixels, or those of the image."""

    name: str
    verdict: str
    thumbnail: np.ndarray
    """(h, w, 3) uint8."""
    downsample: float
    """Level-0 pixels per pixel of the thumbnail."""
    origin: tuple[int, int]
    """(x, y) of the thumbnail's corner."""
    mpp: float | None
    """µm per level-0 pixel, where known."""
    cell: float
    """Edge of a cell of the layers' grids."""
    cell_origin: tuple[int, int]
    """(x, y) of their corner."""
    tile_size_level0: int | None
    """None where there are no tiles."""
    layers: tuple[Layer, ...]
    shown: str = ""
    """Name of the layer that is seen at first, that of the role whose decision counts; empty = the last one."""

    @property
    def extent(self) -> tuple[float, float]:
        """(width, height) of what the thumbnail shows."""
        height, width = self.thumbnail.shape[:2]
        return width * self.downsample, height * self.downsample


def panel_path(out: Path, name: str) -> Path:
    """Where the panel of a slide is."""
    return out / FOLDER / f"{name}.js"


def write_panel(path: Path, panel: Panel) -> Path:
    """Write a panel; the file appears once it is complete."""
    content = {
        **{name: getattr(panel, name) for name in ("name", "verdict", "downsample", "origin", "mpp", "cell")},
        "cell_origin": panel.cell_origin,
        "tile": panel.tile_size_level0,
        "shown": panel.shown or panel.layers[-1].name,
        "thumbnail": jpeg_uri(panel.thumbnail),
        "layers": [_layer_content(layer) for layer in panel.layers],
    }
    with atomic_path(path) as temporary:
        temporary.write_text(BEFORE + json.dumps(content, allow_nan=False) + AFTER, encoding="ascii")
    return path


def read_panel(path: Path) -> Panel:
    """The panel that `write_panel` wrote; pictures have passed through JPEG.

    Raises:
        UserError: it is missing or damaged.
    """
    try:
        text = path.read_text(encoding="ascii")
        content = json.loads(text.removeprefix(BEFORE).removesuffix(AFTER))
        return Panel(
            **{name: content[name] for name in ("name", "verdict", "downsample", "mpp", "cell")},
            thumbnail=_pixels(content["thumbnail"]),
            origin=tuple(content["origin"]),
            cell_origin=tuple(content["cell_origin"]),
            tile_size_level0=content["tile"],
            layers=tuple(map(_layer, content["layers"])),
            shown=content.get("shown", ""),
        )
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: predict into the folder again") from error
    except (OSError, ValueError, LookupError, TypeError, zlib.error) as error:
        raise UserError(f"{path} is damaged ({error}): remove it, and predict into the folder again") from error


def _layer_content(layer: Layer) -> dict[str, Any]:
    return {
        **{name: getattr(layer, name) for name in ("name", "label", "threshold")},
        "shape": layer.grid.shape,
        "grid": packed(layer.grid),
        "scores": packed(layer.scores),
        "highest": [_tile_content(tile) for tile in layer.highest],
        "lowest": [_tile_content(tile) for tile in layer.lowest],
    }


def _layer(content: dict[str, Any]) -> Layer:
    return Layer(
        **{name: content[name] for name in ("name", "label", "threshold")},
        grid=unpacked(content["grid"]).reshape(content["shape"]),
        scores=unpacked(content["scores"]),
        highest=tuple(map(_tile, content["highest"])),
        lowest=tuple(map(_tile, content["lowest"])),
    )


def _tile_content(tile: TilePicture) -> list[Any]:
    return [tile.x, tile.y, tile.score, None if tile.pixels is None else jpeg_uri(tile.pixels)]


def _tile(content: list[Any]) -> TilePicture:
    x, y, score, picture = content
    return TilePicture(x, y, score, None if picture is None else _pixels(picture))


def packed(values: np.ndarray) -> str:
    """Numbers as text, in the order of memory."""
    return base64.b64encode(zlib.compress(np.asarray(values, "<f4").tobytes(), 6)).decode()


def unpacked(text: str) -> np.ndarray:
    """The numbers (n,) float32 of `packed`."""
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), "<f4")


def jpeg_uri(pixels: np.ndarray) -> str:
    """A picture (h, w, 3) uint8 as a `data:` address."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _pixels(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB"))
