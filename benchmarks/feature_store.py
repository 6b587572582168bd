"""Reading a slide's features: the store's contiguous half precision against the one-row chunks of CLAM and TRIDENT."""

import tempfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from benchmarks.machine import milliseconds, ratio, timed_in_turn
from kd_mil.slides.extraction.store import read_slide, write_slide
from kd_mil.slides.tiles.tiling import Tiles

COLUMNS = ("slide", "store_median_ms", "chunked_median_ms", "chunked_half_median_ms", "speedup", "store_mib")
LEAST_SPEEDUP = 15.0
SHAPES = ((12_000, 1024), (3_000, 512))


def run(quick: bool) -> dict[str, Any]:
    """Measure a large slide and a small one; quickly: a tiny one."""
    rows = [measure(*shape, quick=quick) for shape in (((200, 64),) if quick else SHAPES)]
    return {
        "title": "reading all features and coordinates of a slide",
        "note": "Files lie in the page cache. Chunked: (1, D), single precision as others write it, and half.",
        "columns": COLUMNS,
        "rows": rows,
        "goals": [
            {"goal": f"{row['slide']}: >= {LEAST_SPEEDUP:g}x chunked", "value": row["speedup"]}
            | {"reached": row["speedup"] >= LEAST_SPEEDUP}
            for row in rows[:1]
            if not quick
        ],
    }


def measure(count: int, width: int, quick: bool = False) -> dict[str, Any]:
    """One row: the three files are read in turn."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(count, width)).astype(np.float32)
    tiles = tiles_of(rng.integers(0, 100_000, (count, 2)))
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: Path(folder) / f"{name}.h5" for name in ("store", "chunked", "chunked_half")}
        write_slide(paths["store"], tiles, features, attributes={})
        write_chunked(paths["chunked"], features, tiles.coords)
        write_chunked(paths["chunked_half"], features.astype(np.float16), tiles.coords)
        works = {
            "store": lambda: read_slide(paths["store"]),
            "chunked": lambda: read_chunked(paths["chunked"]),
            "chunked_half": lambda: read_chunked(paths["chunked_half"]),
        }
        samples = timed_in_turn(works, repeats=1 if quick else 15, seconds=30.0)
        size = paths["store"].stat().st_size
    row: dict[str, Any] = {"slide": f"{count} x {width}", "store_mib": round(size / 1024**2, 2)}
    row["speedup"] = round(ratio(samples["chunked"], samples["store"]), 1)
    row["speedup_over_half"] = round(ratio(samples["chunked_half"], samples["store"]), 1)
    for name, times in samples.items():
        row |= milliseconds(name, times)
    return row


def tiles_of(coords: np.ndarray) -> Tiles:
    """Tiles of 256 pixels with these level-0 corners (N, 2)."""
    tissue = np.ones(len(coords), np.float32)
    return Tiles(coords, tissue, 256, 512, 0.5, 0, "benchmark", (100_000, 100_000), 0.25)


def write_chunked(path: Path, features: np.ndarray, coords: np.ndarray) -> None:
    """As CLAM's and TRIDENT's writers, which append row by row: a chunk is one row, the first axis may grow."""
    with h5py.File(path, "w") as file:
        for name, array in (("features", features), ("coords", coords)):
            shape = (None, *array.shape[1:])
            file.create_dataset(name, data=array, maxshape=shape, chunks=(1, *array.shape[1:]))


def read_chunked(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """As their readers."""
    with h5py.File(path, "r") as file:
        return file["features"][:], file["coords"][:]
