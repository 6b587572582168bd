"""What other tools want to know of the tiles of a feature file, from what the file and the table say."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from kd_mil.core.errors import UserError
from kd_mil.data.features.files.feature_file import FeatureFile
from kd_mil.data.features.files.positions import grid_step
from kd_mil.data.features.files.provenance import own_attributes, source_of
from kd_mil.slides.slide_list import mpp_of

SAFE = re.compile(r"[^\w.-]+")
MICROMETRES = 10.0
"""Micrometres per pixel of a nominal magnification of one: 20x are 0.5 µm per pixel."""


class TileFacts(NamedTuple):
    """The N tiles of a slide; None where nobody says."""

    coords: np.ndarray
    """(N, 2) int64 (x, y) of the top left corners in level-0 pixels."""
    size_level0: int
    """Side in level-0 pixels."""
    size: int | None
    """Side in pixels as read."""
    overlap: int
    """Pixels as read that neighbours share."""
    mpp: float | None
    """µm per pixel as read."""
    slide_mpp: float | None
    """µm per level-0 pixel."""
    magnification: float | None
    """Nominal, of the pixels as read."""
    level0_magnification: float | None
    extent: tuple[int, int] | None
    """(width, height) of level 0."""
    encoder: str
    """Its name, fit for a file name; `unknown` where the file does not say."""


def tile_facts(bag: FeatureFile, row: Mapping[str, Any]) -> TileFacts:
    """The tiles of an open file.

    Args:
        bag: the file.
        row: of the table; a cell `mpp` is µm per level-0 pixel of the slide, whatever the file says.

    Raises:
        UserError: no positions, none in pixels, or a side of the tiles that nobody can tell.
    """
    of_coords, source = bag.attributes[2], source_of(bag.path, bag.width, *bag.attributes)
    slide_mpp = slide_mpp_of(bag, row)
    coords = bag.coords(slide_mpp)
    if coords is None:
        advice = "" if bag.stored_coords is None else " in pixels: give the table a column mpp, µm per level-0 pixel"
        raise UserError(f"{bag.path} has no positions of its tiles{advice}")
    size_level0 = bag.stated.size_level0 or grid_step(coords.numpy())
    if bag.stated.size_um is not None and slide_mpp is not None:
        size_level0 = round(bag.stated.size_um / slide_mpp)
    if size_level0 is None:
        raise UserError(f"{bag.path} does not say how large its tiles are, and they form no grid")
    size, mpp = source["tile_size"], source["mpp"]
    if size is not None and mpp is None and slide_mpp is not None:
        mpp = slide_mpp * size_level0 / size
    if size is not None and slide_mpp is None and mpp is not None:
        slide_mpp = mpp * size / size_level0
    return TileFacts(
        coords=coords.numpy(),
        size_level0=size_level0,
        size=None if size is None else round(size),
        overlap=int(of_coords.get("overlap") or 0),
        mpp=mpp,
        slide_mpp=slide_mpp,
        magnification=source["magnification"] or _nominal(mpp),
        level0_magnification=of_coords.get("level0_magnification") or _nominal(slide_mpp),
        extent=bag.stated.extent,
        encoder=SAFE.sub("_", source["encoder"] or "unknown"),
    )


def slide_mpp_of(bag: FeatureFile, row: Mapping[str, Any]) -> float | None:
    """µm per level-0 pixel of the slide, as a row's cell `mpp` says it, else the file; None where neither does."""
    own: Mapping[str, Any] = own_attributes(bag.path, bag.attributes[0])
    return mpp_of(dict(row), str(bag.path)) or own.get("slide_mpp")


def _nominal(mpp: float | None) -> float | None:
    if mpp is None:
        return None
    number = MICROMETRES / mpp
    return round(number) if abs(number - round(number)) < 0.02 * number else round(number, 2)
