"""Extraction of 100,000 slides by simulation: `python experiments/scaling/extraction.py OUT.json`.

What a slide costs is measured: processor seconds of one thread, files opened, bytes written. Shards are those of the
command, by its hash. Encoding is an assumption, operations over speed, as in `docs/scaling.md`.
"""

import builtins
import io
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import h5py
import numpy as np

from benchmarks.restart import finish
from kd_mil.core.shards import Shard
from kd_mil.jobs.extract import write_results
from kd_mil.slides.extraction.claims import Claims
from kd_mil.slides.extraction.extraction import Extraction
from kd_mil.slides.extraction.pictures import Pictures
from kd_mil.slides.extraction.planning import plan_slide
from kd_mil.slides.extraction.results import write_together
from kd_mil.slides.extraction.store import write_slide
from kd_mil.slides.slide_list import SlideEntry, list_slides
from kd_mil.slides.synthetic.build import SyntheticSettings, build_synthetic_slides
from kd_mil.slides.tiles.cutting import Cutting
from kd_mil.slides.tiles.tiling import TilingSettings

SLIDES, PROCESSES, WIDTH = 100_000, 32, 1024
MEDIAN_TILES, SPREAD = 8000, 0.7
"""Of log-normal slides: mean 10,222 tiles."""
FLOP_A_TILE, FLOP_A_SECOND = 123e9, 125e12
"""ViT-L/16 on 224 pixels; an assumed 40 % of an A100's bfloat16 peak."""
CUTTING = Cutting(TilingSettings(256, magnification=20))
KNOWN = 1000
"""Finished slides by which a restart is measured."""


class Opened:
    """Counts the files that Python and HDF5 open; OpenSlide's are one a slide and process that reads it."""

    def __init__(self) -> None:
        self.count = 0
        for owner, name in ((builtins, "open"), (io, "open"), (h5py, "File")):
            setattr(owner, name, self.counted(getattr(owner, name)))

    def counted(self, function: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            self.count += 1
            return function(*arguments, **named)

        return call


def measured(work: Any, opened: Opened) -> dict[str, float]:
    """Processor seconds and files opened of one call."""
    before, start = opened.count, time.process_time()
    work()
    return {"seconds": round(time.process_time() - start, 6), "opened": opened.count - before}


def of_a_finished_slide(opened: Opened) -> dict[str, float]:
    """A restart over `KNOWN` slides, tables and page included, for one of them."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        finish(Path(folder), out, KNOWN)

        def restart() -> None:
            entries = list_slides(Path(folder) / "slides")
            extraction = Extraction(entries, out, CUTTING)
            extraction.run()
            write_together(entries, extraction, lambda found: write_results(found, out))

        found = measured(restart, opened)
        sizes = {"ledger": sum(path.stat().st_size for path in (out / ".finished").iterdir())}
        sizes |= {name: (out / name).stat().st_size for name in ("summary.csv", "manifest.csv", "index.html")}
    per_slide = {"seconds": found["seconds"] / KNOWN, "opened": found["opened"] / KNOWN}
    return per_slide | {f"bytes_{name}": size / KNOWN for name, size in sizes.items()}


def of_a_new_slide(opened: Opened) -> dict[str, Any]:
    """Each part of the work on a procedural slide of 20,480 pixels, but for reading and encoding its tiles."""
    with tempfile.TemporaryDirectory() as folder:
        out, cache = Path(folder), Path(os.environ.get("KD_MIL_CACHE", ".cache/kd_mil"))
        made = build_synthetic_slides(cache, SyntheticSettings(slides=1, size=20_480, mpp=0.5), seed=0)
        entry = SlideEntry("s", made.parent / "slides" / "synthetic_000.tif", "s", mpp=0.5)
        extraction = Extraction([entry], out, CUTTING)
        plain = measured(lambda: plan_slide(entry, CUTTING), opened)
        drawn = measured(lambda: plan_slide(entry, CUTTING, None, Pictures(out)), opened)
        plan = plan_slide(entry, CUTTING)
        attributes = extraction.finished.wanted(entry) | {"mpp_source": plan.mpp_source}
        path = extraction.finished.path(entry)
        features = np.zeros((len(plan.tiles.coords), WIDTH), np.float16)

        def write() -> None:
            write_slide(path, plan.tiles, features, attributes=attributes)

        def claim() -> None:
            with Claims(out / ".claims") as claims:
                claims.take("s")

        parts = {"tissue": plain, "write": measured(write, opened), "claim": measured(claim, opened)}
        parts["identity"] = measured(lambda: Extraction([entry], out, CUTTING).finished.wanted(entry), opened)
        parts["pictures"] = {name: round(drawn[name] - plain[name], 6) for name in plain}
        sizes = {"picture": out / "qc" / "s.jpg", "contours": out / "contours" / "s.geojson"}
        sizes_of = {f"bytes_{name}": file.stat().st_size for name, file in sizes.items()}
        return {"parts": parts, "tiles": len(plan.tiles.coords), "bytes_features": path.stat().st_size} | sizes_of


def simulated(finished: dict[str, float], new: dict[str, Any]) -> dict[str, Any]:
    """Hours of 32 processes, by shards and by claims alone, and what they open and write."""
    tiles = np.random.default_rng(0).lognormal(np.log(MEDIAN_TILES), SPREAD, SLIDES)
    busy = tiles * FLOP_A_TILE / FLOP_A_SECOND
    shards = [Shard(index, PROCESSES) for index in range(PROCESSES)]
    names = [f"slide_{number:06}" for number in range(SLIDES)]
    by_shard = [busy[[shard.holds(name) for name in names]].sum() / 3600 for shard in shards]
    ends = np.zeros(PROCESSES)
    for seconds in busy:  # whoever is free takes the next one
        ends[ends.argmin()] += seconds
    a_slide = {name: sum(part[name] for part in new["parts"].values()) for name in ("seconds", "opened")}
    ledger = SLIDES * finished["bytes_ledger"]
    return {
        "tiles": float(tiles.sum()),
        "gpu_hours": float(busy.sum() / 3600),
        "hours_by_shards": [min(by_shard), max(by_shard)],
        "hours_by_claims": [float(ends.min() / 3600), float(ends.max() / 3600)],
        "files_opened_a_slide": a_slide["opened"],
        "core_hours_beside_tiles": a_slide["seconds"] * SLIDES / 3600,
        "gib_features": float(tiles.sum() * WIDTH * 2 / 1024**3),
        "gib_pictures": SLIDES * new["bytes_picture"] / 1024**3,
        "gib_contours": SLIDES * new["bytes_contours"] / 1024**3,
        "mib_ledger": ledger / 1024**2,
        "mib_page": SLIDES * finished["bytes_index.html"] / 1024**2,
        "restart_seconds": finished["seconds"] * SLIDES,
        "restart_files_opened": finished["opened"] * SLIDES,
    }


def main(out: Path) -> None:
    """Measure, simulate, and write both."""
    opened = Opened()
    finished, new = of_a_finished_slide(opened), of_a_new_slide(opened)
    record = {"finished_slide": finished, "new_slide": new, "simulated": simulated(finished, new)}
    out.write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
