"""Slides cut into tiles where some cannot be read: those are left out, and why is listed."""

import sys
from collections.abc import Sequence
from functools import partial

from lightning.pytorch.utilities import rank_zero_only
from tqdm import tqdm

from kd_mil.core.errors import UserError, one_line
from kd_mil.data.tiles.cache import CutSlide, TileCache, read_tile
from kd_mil.slides.over_slides import over_slides
from kd_mil.slides.slide_list import SlideEntry, require_files


def readable_cuts(
    cache: TileCache, entries: Sequence[SlideEntry], processes: int
) -> tuple[list[CutSlide], dict[str, str]]:
    """The slides that can be cut into tiles, and why others cannot, by id; each of those is said once.

    Raises:
        UserError: none can.
    """
    found = over_slides(partial(cut_or_reason, cache), entries, "tissue and tiles", processes)
    reasons = {entry.slide_id: cut for entry, cut in zip(entries, found, strict=True) if isinstance(cut, str)}
    cuts = [cut for cut in found if isinstance(cut, CutSlide)]
    if not cuts:
        raise UserError(f"no slide can be used: {next(iter(reasons.values()))} ({len(reasons)} slides)")
    for name, reason in reasons.items():
        rank_zero_only(tqdm.write)(f"left out {name}: {reason}", file=sys.stderr)
    return cuts, reasons


def cut_or_reason(cache: TileCache, entry: SlideEntry) -> CutSlide | str:
    """A slide with its tiles, of which the first and the last can be read; or why it is left out."""
    try:
        require_files(entry)
        cut = cache.cut(entry)
        if not len(cut.tiles.coords):
            return cut.tiles.reason or "no tissue"
        slide = cache.cutting.open(entry)
        for coord in (cut.tiles.coords[0], cut.tiles.coords[-1]):
            read_tile(slide, cut.tiles, coord)
        slide.close()
        return cut
    except Exception as error:  # whatever it is, the other slides are used
        return one_line(error)
