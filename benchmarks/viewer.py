"""The viewer on slides of 320 and of 100,000 tiles: from its address to a picture, and the longest frame in motion."""

import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from tests.support.browser import IDLE, chromium, open_page
from tests.support.predicted import Scored, noise, predicted_folder, scores_of
from tests.support.viewing import LONGEST_FRAME, running_viewer

COLUMNS = ("slide", "tiles", "seconds", "over_smallest", "server_cpu_s", "browser_cpu_s", "sent_mib", "frame_ms")
MOST_SECONDS, MOST_FRAME = 2.0, 100.0
SLIDES: dict[str, tuple[int, int, Scored]] = {
    "smallest": (20, 16, scores_of),
    "one finding": (400, 250, scores_of),
    "noise": (400, 250, noise),
}
"""Columns and rows of tiles, and their scores."""
SENT = "performance.getEntriesByType('resource').reduce((sum, one) => sum + one.transferSize, 0)"


def run(quick: bool) -> dict[str, Any]:
    """Open the slides in turn, each time with a new server and by a browser that keeps nothing."""
    repeats = 1 if quick else 5
    with tempfile.TemporaryDirectory() as name, chromium() as browser:
        folder, seen = Path(name), {slide: list[dict[str, float]]() for slide in SLIDES}
        for slide, (columns, rows, scored) in SLIDES.items():
            predicted_folder(folder / slide, ["slide"], columns, rows, scored)
        for turn in range(1 + repeats):
            for slide, samples in seen.items():
                with running_viewer(folder, f"predictions={slide}") as viewer:
                    sample = look(browser, viewer.url, psutil.Process(viewer.process.pid))
                samples += [sample] if turn else []  # the first turn warms up
    rows_of = [row(slide, seen) for slide in SLIDES]
    return {
        "title": "a slide in the viewer",
        "note": "Medians. Seconds: from asking a server that listens to a page at rest, all scripts loaded anew, "
        "in a headless Chromium without a GPU. CPU: of the server, and of all processes of the browser. Sent: by HTTP, "
        "scripts; layers come through a socket.",
        "columns": COLUMNS,
        "rows": rows_of,
        "goals": [] if quick else [goal for one in rows_of for goal in goals(one)],
    }


def look(browser: Any, url: str, server: psutil.Process) -> dict[str, float]:
    """What it takes to open an address and to move the view."""
    before, served, start = browser_cpu(), cpu(server), time.monotonic()
    with open_page(browser, url) as page:
        page.wait_for_function(IDLE, polling=20)
        seconds, after = time.monotonic() - start, browser_cpu()
        used = sum(after.values()) - sum(before[pid] for pid in after.keys() & before.keys())
        seen = {"seconds": seconds, "server_cpu_s": cpu(server) - served, "browser_cpu_s": used}
        return seen | {"sent_mib": page.evaluate(SENT) / 2**20, "frame_ms": page.evaluate(LONGEST_FRAME)}


def browser_cpu() -> dict[int, float]:
    """Seconds of processor time so far, by process of the browser."""
    children = psutil.Process().children(recursive=True)
    return {one.pid: cpu(one) for one in children if "chrom" in one.name()}


def cpu(process: psutil.Process) -> float:
    """Seconds of processor time so far."""
    times = process.cpu_times()
    return times.user + times.system


def row(slide: str, seen: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Medians of one slide."""
    columns, rows, _ = SLIDES[slide]
    medians = {name: round(median(one[name] for one in seen[slide]), 3) for name in seen[slide][0]}
    pairs = zip(seen[slide], seen["smallest"], strict=True)
    over = round(median(one["seconds"] / other["seconds"] for one, other in pairs), 2)
    return {"slide": slide, "tiles": columns * rows, "over_smallest": over, **medians, "samples": seen[slide]}


def goals(one: dict[str, Any]) -> list[dict[str, Any]]:
    """What the row should reach."""
    limits = (("seconds", MOST_SECONDS, "opens in"), ("frame_ms", MOST_FRAME, "pans with frames of"))
    return [
        {"goal": f"{one['slide']}, {one['tiles']} tiles: {does} < {most:g} {name}", "value": one[name]}
        | {"reached": one[name] < most}
        for name, most, does in limits
    ]
