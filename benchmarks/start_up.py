"""Start-up of training on many feature files: the first time, when each is read through, and with the index after."""

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from benchmarks.feature_store import tiles_of
from benchmarks.machine import milliseconds, ratio, timed, timed_in_turn
from kd_mil.data.datamodules import Loading
from kd_mil.data.features.feature_bags import FeatureBags
from kd_mil.data.features.files.index import NAME
from kd_mil.slides.extraction.store import write_slide

COLUMNS = (
    *("files", "kept", "first_median_ms", "again_median_ms", "again_cpu_s"),
    *("one_opening_each_median_ms", "again_over_openings"),
)
FILES, TILES, WIDTH = 4000, 50, 64
MOST_SECONDS = 2.0
EARLIER = {"commit": "7c2fb62", "seconds": 143.3, "cpu_seconds": 31.9, "load_average": 12.0}
"""The same start before there was an index, on the machine of the record beside many other processes: nine openings of
each file, every time. Between two such runs the present code took 4.5 s and 7.6 s, 1.5 s of CPU."""


def run(quick: bool) -> dict[str, Any]:
    """Measure sets kept in memory and in files; quickly: a small one."""
    with tempfile.TemporaryDirectory() as folder:
        manifest = write_set(Path(folder), 40 if quick else FILES)
        rows = [measure(manifest, kept, 1 if quick else 3) for kept in ("memory", "files")]
    return {
        "title": "start-up of training on feature files",
        "note": f"{TILES} tiles of {WIDTH} features; bags, labels, split table and fingerprint, without imports. "
        f"Commit {EARLIER['commit']} took {EARLIER['seconds']} s for 4000 at a load of {EARLIER['load_average']:g} "
        f"on two cores, in a run of its own: compare its {EARLIER['cpu_seconds']} s of CPU.",
        "columns": COLUMNS,
        "rows": rows,
        "earlier": EARLIER,
        "goals": [
            {"goal": f"{row['files']} files in {row['kept']}, the second time: < {MOST_SECONDS:g} s of one core"}
            | {"value": row["again_cpu_s"], "reached": row["again_cpu_s"] < MOST_SECONDS}
            for row in rows
            if not quick
        ],
    }


def write_set(folder: Path, count: int) -> Path:
    """A manifest of `count` slides as `kd_mil.extract` writes them, an hour old."""
    rng, rows = np.random.default_rng(0), ["slide_id,label,split,feature_path"]
    an_hour_ago = time.time() - 3600
    facts = {"encoder": {"name": "benchmark"}, "negatives_known": True}
    for number in range(count):
        path = folder / "features" / f"s{number}.h5"
        tiles = tiles_of(rng.integers(0, 100_000, (TILES, 2)))
        write_slide(path, tiles, rng.normal(size=(TILES, WIDTH)), attributes=facts | {"slide": {"content": path.stem}})
        os.utime(path, (an_hour_ago, an_hour_ago))
        rows.append(f"s{number},{number % 2},{('train', 'val', 'test')[number % 3]},features/s{number}.h5")
    (folder / "manifest.csv").write_text("\n".join(rows))
    return folder / "manifest.csv"


def measure(manifest: Path, kept: str, repeats: int) -> dict[str, Any]:
    """One row; the bare opening of each file, as a measure of the machine, takes turns with the start."""
    files = sorted((manifest.parent / "features").iterdir())

    def start() -> None:
        data = FeatureBags(str(manifest), Loading(resident_gib=4.0 if kept == "memory" else 0.0))
        data.setup()
        data.split_rows()
        data.fingerprint()

    (manifest.parent / NAME).unlink(missing_ok=True)
    first = timed(start)
    samples = timed_in_turn({"again": start, "one_opening_each": lambda: open_all(files)}, repeats, seconds=60.0)
    row: dict[str, Any] = {"files": len(files), "kept": kept} | milliseconds("first", [first])
    for name, times in samples.items():
        row |= milliseconds(name, times)
    row["again_cpu_s"] = round(min(clock.cpu for clock in samples["again"]), 3)  # of a machine that others use, too
    row["again_over_openings"] = round(ratio(samples["again"], samples["one_opening_each"]), 2)
    return row


def open_all(files: list[Path]) -> None:
    """Open each file and close it."""
    for path in files:
        with h5py.File(path, "r"):
            pass
