"""Restart of a finished extraction: the list is read, every slide is found done, and tables and page are written."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.machine import milliseconds, ratio, timed_in_turn
from kd_mil.jobs.extract import write_results
from kd_mil.slides.extraction.extraction import Extraction
from kd_mil.slides.extraction.outcome import Outcome
from kd_mil.slides.extraction.results import write_together
from kd_mil.slides.extraction.store import write_slide
from kd_mil.slides.slide_list import list_slides
from kd_mil.slides.tiles.cutting import Cutting
from kd_mil.slides.tiles.tiling import Tiles, TilingSettings

COLUMNS = ("slides", "work", "seconds", "slides_per_s", "over_stat", "bytes_of_ledger")
SLIDES = 4000
MOST_SECONDS = 2.0
CUTTING = Cutting(TilingSettings(256, magnification=20))


def run(quick: bool) -> dict[str, Any]:
    """Measure by the ledger, by the files alone as if there were none, and the least that any restart does: `stat`."""
    count = 40 if quick else SLIDES
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        finish(Path(folder), out, count)
        files = [*(Path(folder) / "slides").iterdir(), *out.glob("*/*.h5")]
        works = {"ledger": restart(Path(folder), out, forget=False), "files": restart(Path(folder), out, forget=True)}
        samples = timed_in_turn(works | {"stat": lambda: stat_all(files)}, repeats=1 if quick else 5, seconds=120.0)
        size = sum(path.stat().st_size for path in (out / ".finished").iterdir())
    rows = []
    for work in ("ledger", "files"):
        times = samples[work]
        seconds = median(clock.wall for clock in times)
        row = {"slides": count, "work": f"by the {work}", "seconds": round(seconds, 2)}
        row |= {"slides_per_s": round(count / seconds), "bytes_of_ledger": size} | milliseconds(work, times)
        row |= {"over_stat": round(ratio(times, samples["stat"]), 1)} | milliseconds("stat", samples["stat"])
        rows.append(row)
    goal = {"goal": f"restart of {count} slides < {MOST_SECONDS:g} s", "value": rows[0]["seconds"]}
    return {
        "title": "restart of a finished extraction",
        "note": "Medians, in a process that has imported everything: list, outcomes, tables and page. Over stat: "
        "against one os.stat of each slide and of each file of features, in turn with it.",
        "columns": COLUMNS,
        "rows": rows,
        "goals": [] if quick else [goal | {"reached": rows[0]["seconds"] < MOST_SECONDS}],
    }


def stat_all(files: list[Path]) -> None:
    """Ask for size and time of change of each file."""
    for path in files:
        path.stat()


def finish(folder: Path, out: Path, count: int) -> None:
    """A list of `count` slides, and what an extraction leaves of them; no two slides have one size, as scans."""
    slides, rng = folder / "slides", np.random.default_rng(0)
    slides.mkdir()
    for number in range(count):
        (slides / f"slide_{number:06}.svs").write_bytes(rng.bytes(100 + number))
    entries = list_slides(slides)
    extraction = Extraction(entries, out, CUTTING)
    for entry in entries:
        coords = rng.integers(0, 100_000, (100, 2))
        tiles = Tiles(coords, np.ones(100, np.float32), 256, 512, 0.5, 0, entry.slide_id, (100_000, 100_000), 0.25)
        path = extraction.finished.path(entry)
        write_slide(path, tiles, attributes=extraction.finished.wanted(entry) | {"mpp_source": "file"})
        extraction.finished.note(Outcome(entry, "written", path, 100, rejected=10, tissue=0.3))


def restart(folder: Path, out: Path, forget: bool) -> Callable[[], None]:
    """The work of a restarted command between its imports and its last word."""

    def work() -> None:
        if forget:
            for path in (out / ".finished").iterdir():
                path.unlink()
        entries = list_slides(folder / "slides")
        extraction = Extraction(entries, out, CUTTING)
        outcomes = extraction.run()
        assert {outcome.status for outcome in outcomes} == {"kept"}
        write_together(entries, extraction, lambda found: write_results(found, out))

    return work
