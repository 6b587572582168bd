"""Pieces of tissue that are classified as images: whole sections of a slide, or its tiles, at any resolution.

pieces = Sections(mpp=1.0, tissue=TissueSettings())
for box in pieces.boxes(slide):
    image = read_piece(slide, box, mpp=4.0, reading="pyramid")
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
from PIL import Image
from scipy import ndimage

from kd_mil.core.checks import above, at_least, one_of
from kd_mil.core.errors import UserError
from kd_mil.slides.formats.reader import Slide
from kd_mil.slides.formats.reducing import downsampled, downsampled_size
from kd_mil.slides.tiles.tiling import TilingSettings, tile_grid
from kd_mil.slides.tiles.tissue import TissueMask, TissueSettings, find_tissue

Reading = Literal["pyramid", "level0"]
READINGS = ("pyramid", "level0")
Box = tuple[int, int, int, int]
"""(x, y, width, height) in level-0 pixels."""


@dataclass(frozen=True)
class Sections:
    """Every section of tissue whole, in its bounding box (DiPalma et al. 2021, Sec. 4.2).

    Raises:
        UserError: a number out of range.
    """

    kind: ClassVar[str] = "sections"
    mpp: float = 1.0
    """µm per pixel at downsample 1."""
    tissue: TissueSettings = field(default_factory=TissueSettings)
    margin_um: float = 32.0
    """Widens the box around a section."""
    min_side_um: float = 200.0
    """Sections with a shorter side are left out."""

    def __post_init__(self) -> None:
        above("data.mpp", self.mpp)
        at_least("data.margin_um", self.margin_um, 0)

    def boxes(self, slide: Slide) -> list[Box]:
        """The pieces of a slide; none where there is no such section."""
        return tissue_boxes(find_tissue(slide, self.tissue), slide, self.margin_um, self.min_side_um)

    def facts(self) -> dict[str, Any]:
        """All settings as plain values, for a checkpoint."""
        return {"kind": self.kind} | asdict(self)


@dataclass(frozen=True)
class TilePieces:
    """Square tiles of a grid, where there is tissue.

    Raises:
        UserError: a number out of range.
    """

    kind: ClassVar[str] = "tile_pairs"
    mpp: float = 1.0
    """µm per pixel at downsample 1."""
    tissue: TissueSettings = field(default_factory=TissueSettings)
    tile_size: int = 256
    """Side in pixels at downsample 1."""
    min_tissue: float = 0.5
    """Least tissue area fraction of a tile."""

    def __post_init__(self) -> None:
        TilingSettings(tile_size=self.tile_size, mpp=self.mpp, min_tissue=self.min_tissue)

    def boxes(self, slide: Slide) -> list[Box]:
        """The pieces of a slide, which may itself be coarser than `mpp`."""
        tiling = TilingSettings(tile_size=self.tile_size, mpp=self.mpp, min_tissue=self.min_tissue, upsample=True)
        tiles = tile_grid(slide, find_tissue(slide, self.tissue), tiling)
        side = tiles.tile_size_level0
        return [(x, y, side, side) for x, y in tiles.coords.tolist()]

    def facts(self) -> dict[str, Any]:
        """All settings as plain values, for a checkpoint."""
        return {"kind": self.kind} | asdict(self)


Pieces = Sections | TilePieces


def pieces_of(source: Mapping[str, Any]) -> Pieces | None:
    """What `facts` wrote, as settings again; None of a source that is not cut from slides.

    Raises:
        UserError: words or values that this version does not know.
    """
    kinds: tuple[type[Sections] | type[TilePieces], ...] = (Sections, TilePieces)
    for found in kinds:
        if source.get("kind") == found.kind:
            names = ("mpp", "margin_um", "min_side_um", "tile_size", "min_tissue")
            try:
                settings = {name: source[name] for name in names if name in found.__dataclass_fields__}
                return found(tissue=TissueSettings(**source["tissue"]), **settings)
            except (TypeError, KeyError, UserError) as error:
                raise UserError(f"the checkpoint does not say how to find its pieces of tissue: {error}") from error
    return None


def read_piece(slide: Slide, box: Box, mpp: float, reading: Reading = "pyramid") -> Image.Image:
    """The pixels of a piece at `mpp` µm per pixel, RGB.

    Args:
        slide: an open slide.
        box: of the piece, in level-0 pixels.
        mpp: of the result.
        reading: `pyramid` takes the nearest level at or finer than `mpp` and reduces the rest of the way, a small part
            of the bytes; `level0` reads all pixels and reduces them in one Lanczos step, as the paper does.
    """
    x, y, width, height = box
    if reading == "level0":
        return downsampled(Image.fromarray(np.asarray(slide.read(x, y, (width, height), slide.mpp))), mpp / slide.mpp)
    return Image.fromarray(np.asarray(slide.read(x, y, downsampled_size((width, height), mpp / slide.mpp), mpp)))


def check_reading(name: str, reading: str) -> None:
    """Refuse an unknown way of reading; UserError names the setting."""
    one_of(name, reading, READINGS)


def tissue_boxes(found: TissueMask, slide: Slide, margin_um: float, min_side_um: float) -> list[Box]:
    """Bounding boxes of the tissue sections, clipped to the slide."""
    sections, _ = ndimage.label(found.mask)
    left, top, full_width, full_height = slide.bounds
    margin, least = margin_um / slide.mpp, min_side_um / slide.mpp
    boxes = []
    for rows, columns in ndimage.find_objects(sections):
        sides = [(span.stop - span.start) * found.downsample for span in (rows, columns)]
        if min(sides) < least:
            continue
        x0, x1 = (found.origin[0] + edge * found.downsample for edge in (columns.start, columns.stop))
        y0, y1 = (found.origin[1] + edge * found.downsample for edge in (rows.start, rows.stop))
        x0, y0 = max(left, int(x0 - margin)), max(top, int(y0 - margin))
        x1, y1 = min(left + full_width, round(x1 + margin)), min(top + full_height, round(y1 + margin))
        boxes.append((x0, y0, x1 - x0, y1 - y0))
    return boxes
