"""Slides: tiles read against a plain `read_region` loop, and tissue found."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import openslide
from PIL import Image

from benchmarks.machine import milliseconds, ratio, timed_in_turn
from kd_mil.slides.extraction.planning import PlannedSlide, plan_slide
from kd_mil.slides.extraction.tile_loader import requests_of, tile_loader
from kd_mil.slides.formats.reader import open_slide
from kd_mil.slides.slide_list import SlideEntry
from kd_mil.slides.synthetic.build import SyntheticSettings, build_synthetic_slides
from kd_mil.slides.tiles.cutting import Cutting
from kd_mil.slides.tiles.tiling import TilingSettings
from kd_mil.slides.tiles.tissue import find_tissue

COLUMNS = ("slide", "work", "tiles", "tiles_per_s", "bare_per_s", "of_bare", "two_over_one", "seconds")
LEAST_OF_BARE, LEAST_TWO_OVER_ONE = 0.95, 1.7
TILE = 256
BATCH = 64
LEAST_TILES = 1000
"""Fewer do not keep workers busy for long enough to be measured."""
RESAMPLED = 1.6
"""Target resolution of the resampled case, as a multiple of level 0's."""
REAL = "slides/CMU-1-Small-Region.svs"


def run(quick: bool) -> dict[str, Any]:
    """Measure on a large procedural slide and on a real one, where it is there; quickly: on a small procedural one."""
    slides = find_slides(quick)
    orders, resolutions = (("raster",), (1.0,)) if quick else (("raster", "random"), (1.0, RESAMPLED))
    rows = [
        reading_row(name, entry, order, resolution, quick)
        for name, entry in slides.items()
        for resolution in resolutions
        for order in orders
    ]
    rows += [tissue_row(name, entry, quick) for name, entry in slides.items()]
    return {
        "title": "tiles of slides: reading, tissue",
        "note": "Medians. Bare: a loop of read_region in one process.",
        "tile": TILE,
        "columns": COLUMNS,
        "rows": rows,
        "goals": [] if quick else [goal for row in rows for goal in goals(row)],
    }


def find_slides(quick: bool) -> dict[str, SlideEntry]:
    """The slides to measure, by what they are."""
    size = 1536 if quick else 20_480
    found = {f"procedural {size} px": procedural_slide(size)}
    real = Path(os.environ.get("KD_MIL_DATA", "data")) / REAL
    if real.exists() and not quick:
        found[real.stem] = SlideEntry("real", real, "real")
    return found


def procedural_slide(size: int) -> SlideEntry:
    """A procedural slide of that side in pixels at 0.5 µm, made once."""
    cache = Path(os.environ.get("KD_MIL_CACHE", ".cache/kd_mil"))
    made = build_synthetic_slides(cache, SyntheticSettings(slides=1, size=size, mpp=0.5), seed=0)
    return SlideEntry("procedural", made.parent / "slides" / "synthetic_000.tif", "procedural", mpp=0.5)


def planned(entry: SlideEntry, order: str, resolution: float) -> PlannedSlide:
    """All tiles with tissue, row by row or in random order."""
    mpp = open_slide(entry.path, entry.mpp).mpp * resolution
    plan = plan_slide(entry, Cutting(TilingSettings(TILE, mpp=mpp)))
    coords = plan.tiles.coords
    if order == "random":
        coords = np.random.default_rng(0).permutation(coords)
    return replace(plan, tiles=replace(plan.tiles, coords=coords))


def reading_row(name: str, entry: SlideEntry, order: str, resolution: float, quick: bool) -> dict[str, Any]:
    """Our loader with one and two workers, and a plain loop, in turn; each starts without anything cached.

    The start of the workers, once in an extraction of hours, is measured beside them and taken off. A slide too small
    for that is read without workers.
    """
    plan = planned(entry, order, resolution)
    first = replace(plan, tiles=replace(plan.tiles, coords=plan.tiles.coords[:1]))
    works = {"bare": bare_loop(plan, resolution), "here": loader_loop(plan, 0)}
    if quick or len(plan.tiles.coords) >= LEAST_TILES:
        works |= {"one": loader_loop(plan, 1), "one_start": loader_loop(first, 1)}
        works |= {"two": loader_loop(plan, 2), "two_start": loader_loop(first, 2)}
    samples = timed_in_turn(works, repeats=1 if quick else 5, seconds=120.0)
    seconds = {work: np.array([clock.wall for clock in times]) for work, times in samples.items()}
    best = seconds["one"] - seconds["one_start"] if "one" in works else seconds["here"]
    row: dict[str, Any] = {
        "slide": name,
        "work": f"read, {'native' if resolution == 1 else 'resampled'}, {order}",
        "tiles": len(plan.tiles.coords),
        "workers": int("one" in works),
        "tiles_per_s": round(len(plan.tiles.coords) / float(np.median(best)), 1),
        "bare_per_s": round(len(plan.tiles.coords) / float(np.median(seconds["bare"])), 1),
        "of_bare": round(float(np.median(seconds["bare"] / best)), 3),
        "of_bare_without_workers": round(ratio(samples["bare"], samples["here"]), 3),
    }
    if "two" in works:
        row["two_over_one"] = round(float(np.median(best / (seconds["two"] - seconds["two_start"]))), 2)
    for work, times in samples.items():
        row |= milliseconds(work, times)
    return row


def bare_loop(plan: PlannedSlide, resolution: float) -> Callable[[], None]:
    """What anyone would write: read at level 0, make it RGB, and reduce it where the target is coarser."""
    size = round(TILE * resolution)

    def work() -> None:
        with openslide.OpenSlide(plan.entry.path) as slide:
            for x, y in plan.tiles.coords.tolist():
                tile = slide.read_region((x, y), 0, (size, size)).convert("RGB")
                np.asarray(tile if resolution == 1 else tile.resize((TILE, TILE), Image.Resampling.HAMMING))

    return work


def loader_loop(plan: PlannedSlide, num_workers: int) -> Callable[[], None]:
    """The tiles as extraction reads them."""

    def work() -> None:
        requests = requests_of([plan], BATCH, lambda _: True)
        for _ in tile_loader(requests, "openslide", num_workers, pin_memory=False):
            pass

    return work


def tissue_row(name: str, entry: SlideEntry, quick: bool) -> dict[str, Any]:
    """Seconds to find the tissue of a slide that was not opened before."""

    def work() -> None:
        slide = open_slide(entry.path, entry.mpp)
        find_tissue(slide)
        slide.close()

    [times] = timed_in_turn({"tissue": work}, repeats=1 if quick else 9, seconds=60.0).values()
    seconds = median(clock.wall for clock in times)
    return {"slide": name, "work": "tissue", "seconds": round(seconds, 3)} | milliseconds("tissue", times)


def goals(row: dict[str, Any]) -> list[dict[str, Any]]:
    """What the row has to reach."""
    wanted = [("of the bare loop", "of_bare", LEAST_OF_BARE), ("by two workers", "two_over_one", LEAST_TWO_OVER_ONE)]
    return [
        {"goal": f"{row['slide']}, {row['work']}: {what} >= {least:g}", "value": row[key], "reached": row[key] >= least}
        for what, key, least in wanted
        if key in row
    ]
