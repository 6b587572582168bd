"""Positions and names in what `predict` and `segment` write of slides."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from shapely.geometry import shape

from tests.campaign.cases import Case, Check, Result, table_text
from tests.campaign.checks import done, everything, listed
from tests.campaign.inputs.pictures import TILES, good, picture, tissue
from tests.campaign.inputs.vendors import leica

TILES_MODEL = ("ckpt=@tiles", "slides=in", "out=out", "table=csv", "device=cpu")
MASKS_MODEL = ("ckpt=@masks", "slides=in", "out=out", "device=cpu", "mpp=2.0")


def cases() -> Iterator[Case]:
    """Positions on slides with bounds, slides too small, hints that help."""
    kind = "slides with bounds"
    yield Case(
        "predict_bounds",
        kind,
        lambda folder: leica(folder / "s.scn"),
        everything(done("s", tiles=TILES), _first_in_geojson((512, 512))),
        command="predict",
        settings=TILES_MODEL,
    )
    yield Case(
        "predict_bounds_off",
        kind,
        lambda folder: leica(folder / "s.scn"),
        everything(done("s", tiles=TILES), _first_in_geojson((2048, 1536))),
        command="predict",
        settings=(*TILES_MODEL, "in_bounds=false"),
    )
    yield Case(
        "segment_bounds",
        kind,
        lambda folder: leica(folder / "s.scn"),
        everything(done("s"), _outlines_within((0, 0, 2048, 2048))),
        command="segment",
        settings=(*MASKS_MODEL, "threshold=0.0001"),
    )
    yield Case(
        "segment_outlines_inside",
        "outlines leave the slide",
        _drawn((1003, 997)),
        everything(done("s"), _outlines_within((0, 0, 1003, 997))),
        command="segment",
        settings=(*MASKS_MODEL, "slides=in/list.csv", "threshold=0.0001"),
    )
    yield Case(
        "predict_small_slide",
        "small slides",
        _drawn((40, 40)),
        _says_small,
        command="predict",
        settings=(*TILES_MODEL, "slides=in/list.csv"),
    )
    for command, settings, words in (
        ("predict", TILES_MODEL, "mpp"),
        ("segment", MASKS_MODEL, "column|slide list"),  # its mpp= is what the network sees
    ):
        yield Case(
            f"{command}_no_resolution",
            "hints",
            lambda folder: (picture(folder / "s.png", tissue()), good(folder / "good.svs")),
            everything(listed("s", words), done("good")),
            command=command,
            settings=settings,
        )
    yield Case(
        "segment_ids_of_checkpoints",
        "outlines of two checkpoints",
        lambda folder: picture(folder / "s.png", tissue(size=(64, 64), box=(0, 0, 64, 64))),
        _other_ids,
        command="segment",
        settings=("ckpt=@masks", "images=in", "out=out", "device=cpu", "threshold=0.0001"),
        before=(("segment", "ckpt=@masks_again", "images=in", "out=out/other", "device=cpu", "threshold=0.0001"),),
    )


def _drawn(size: tuple[int, int]) -> Callable[[Path], None]:
    """A slide `s` of `size` (width, height) um, all of it tissue, in a list."""

    def write(folder: Path) -> None:
        picture(folder / "s.png", tissue(size=size, box=(0, 0, *size)))
        (folder / "list.csv").write_text(table_text([{"slide_path": "s.png", "mpp": 1.0}]))

    return write


def _says_small(result: Result) -> list[str]:
    note = result.failure_of("s") or ""
    return [] if "small" in note else [f"says {note!r}, not that it is smaller than a tile"]


def _polygons(result: Result) -> list[Any]:
    return json.loads(next(result.out.glob("geojson/*.geojson")).read_text())["features"]


def _first_in_geojson(corner: tuple[int, int]) -> Check:
    def check(result: Result) -> list[str]:
        tiles = [one for one in _polygons(result) if one["properties"]["objectType"] == "detection"]
        found = tuple(tiles[0]["geometry"]["coordinates"][0][0])
        return [] if found == corner else [f"first tile at {found}, not {corner}"]

    return check


def _outlines_within(box: tuple[int, int, int, int]) -> Check:
    def check(result: Result) -> list[str]:
        shapes = [shape(one["geometry"]) for one in _polygons(result)]
        bounds = shapely.total_bounds(np.array(shapes, dtype=object)).tolist() if shapes else []
        if not shapes:
            return ["no outlines"]
        inside = shapely.box(*box).covers(shapely.box(*bounds))
        return [] if inside else [f"outlines reach {[round(value) for value in bounds]}, the slide {box}"]

    return check


def _other_ids(result: Result) -> list[str]:
    here = {one["id"] for one in _polygons(result)}
    there = {one["id"] for one in json.loads((result.out / "other" / "geojson" / "s.geojson").read_text())["features"]}
    if not here:
        return ["nothing outlined"]
    return [f"{len(here & there)} ids occur in both"] if here & there else []
