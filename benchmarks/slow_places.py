"""Places that were slow: an earlier commit, the present code, and what either could at best be, in one run."""

import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import Clock, milliseconds, ratio
from benchmarks.trees import ROOT, earlier, process

BEFORE = "a927d41"
"""The last commit before these places were mended; taken from the history of this checkout."""
ROUNDS, REPEATS = 2, 5
COLUMNS = ("where", "before_median_ms", "now_median_ms", "speedup", "reference", "over_reference", "goal")
MOST_OVER = {
    "features of a bag on disk, in training": 1.5,
    "256 instances out of many slides on disk": 3.0,
    "softmax of a bag of 100": 1.3,
    "hard positive mining, a bag of 100": 1.3,
    "DSMIL, a bag of 100, forward and backward": 1.3,
}
"""Largest ratio to the first reference."""
MOST_MS = {"GeoJSON of 100000 scattered tiles": 1000.0, "AUROC and AP of 1000000 instances": 230.0}
Samples = dict[str, dict[str, list[Clock]]]


def run(quick: bool) -> dict[str, Any]:
    """Old and new code take turns, a process each; quickly: once, on little."""
    with tempfile.TemporaryDirectory() as folder:
        trees = earlier(Path(folder), BEFORE) | {"now": ROOT}
        rounds = [
            {name: timed_places(tree, quick) for name, tree in trees.items()} for _ in range(1 if quick else ROUNDS)
        ]
        rows = [row_of(where, rounds) for where in rounds[0]["now"]]
    return {
        "title": "places that were slow",
        "note": f"Before: commit {BEFORE}. Over reference: against the first of what is timed in turn with the work.",
        "columns": COLUMNS,
        "before": BEFORE,
        "rows": rows,
        "goals": []
        if quick
        else [{"goal": f"{r['where']}: {r['goal']}"} | r["reached_goal"] for r in rows if "goal" in r],
    }


def timed_places(tree: Path, quick: bool) -> Samples:
    """What `benchmarks.places` measures of the code in a tree."""
    how = ("1", "quick") if quick else (str(REPEATS), "whole")
    printed = process(tree, "-m", "benchmarks.places", *how, str(torch.get_num_threads()))
    found = json.loads(printed.splitlines()[-1])
    return {where: {key: [Clock(*one) for one in times] for key, times in of.items()} for where, of in found.items()}


def row_of(where: str, rounds: list[dict[str, Samples]]) -> dict[str, Any]:
    """One place over all rounds."""
    now = [one for each in rounds for one in each["now"][where]["work"]]
    row = timed_row(where, {name: [one for each in rounds for one in each[name][where]["work"]] for name in rounds[0]})
    for number, name in enumerate(key for key in rounds[0]["now"][where] if key != "work"):
        reference = [one for r in rounds for one in r["now"][where][name]]
        row |= milliseconds(name, reference)
        if number == 0:
            row |= {"reference": name, "over_reference": round(ratio(now, reference), 2)}
    if where in MOST_OVER:
        row["goal"] = f"<= {MOST_OVER[where]:g}x {row['reference']}"
        row["reached_goal"] = {"value": row["over_reference"], "reached": row["over_reference"] <= MOST_OVER[where]}
    if where in MOST_MS:
        row["goal"] = f"<= {MOST_MS[where]:g} ms"
        row["reached_goal"] = {"value": row["now_median_ms"], "reached": row["now_median_ms"] <= MOST_MS[where]}
    return row


def timed_row(where: str, samples: dict[str, list[Clock]]) -> dict[str, Any]:
    """Times of the present code and, where there is one, of the earlier one."""
    row: dict[str, Any] = {"where": where}
    for name, clocks in samples.items():
        row |= milliseconds(name, clocks)
    row["range_ms"] = [row["now_min_ms"], max(row["now_samples_ms"])]
    if "before" in samples:
        row["speedup"] = round(row["before_median_ms"] / row["now_median_ms"], 2)
    return row
