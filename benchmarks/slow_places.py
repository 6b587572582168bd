"""Places that were slow: an earlier commit, the present code, and what either could at best be, in one run."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.machine import Clock, milliseconds, ratio

BEFORE = "a927d41"
"""The last commit before these places were mended; taken from the history of this checkout."""
ROUNDS, REPEATS = 2, 5
COLUMNS = ("where", "before_median_ms", "now_median_ms", "speedup", "reference", "over_reference", "goal")
ROOT = Path(__file__).resolve().parents[1]
MOST_OVER = {
    "features of a bag on disk, in training": 1.5,
    "256 instances out of many slides on disk": 3.0,
    "softmax of a bag of 100": 1.3,
    "hard positive mining, a bag of 100": 1.3,
    "DSMIL, a bag of 100, forward and backward": 1.3,
}
"""Largest ratio to the first reference."""
MOST_MS = {"GeoJSON of 100000 scattered tiles": 1000.0, "AUROC and AP of 1000000 instances": 230.0}
COMMANDS = {"run --help": ["run", "--help"], "a mistake": ["run", "experiment=mil_max", "seed=-1"]}
MOST_CPU_S = 1.0
Samples = dict[str, dict[str, list[Clock]]]


def run(quick: bool) -> dict[str, Any]:
    """Old and new code take turns, a process each; quickly: once, on little."""
    with tempfile.TemporaryDirectory() as folder:
        trees = earlier(Path(folder)) | {"now": ROOT}
        rounds = [
            {name: timed_places(tree, quick) for name, tree in trees.items()} for _ in range(1 if quick else ROUNDS)
        ]
        rows = [row_of(where, rounds) for where in rounds[0]["now"]]
        rows += [command_row(name, words, trees, 1 if quick else ROUNDS) for name, words in COMMANDS.items()]
    return {
        "title": "places that were slow",
        "note": f"Before: commit {BEFORE}. Over reference: against the first of what is timed in turn with the work. "
        "Commands: CPU time of a process.",
        "columns": COLUMNS,
        "before": BEFORE,
        "rows": rows,
        "goals": []
        if quick
        else [{"goal": f"{r['where']}: {r['goal']}"} | r["reached_goal"] for r in rows if "goal" in r],
    }


def earlier(folder: Path) -> dict[str, Path]:
    """The package as it was, out of the history; none where this is no clone that has it."""
    words = ["git", "-C", str(ROOT), "archive", BEFORE, "kd_mil", "conf", "hydra_plugins"]
    archive = subprocess.run(words, capture_output=True, check=False)
    if archive.returncode:
        return {}
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    return {"before": folder}


def process(tree: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A Python process in which `kd_mil` is that of a tree, and all else of this checkout."""
    environment = os.environ | {"PYTHONPATH": f"{tree}{os.pathsep}{ROOT}", "PYTHONSAFEPATH": "1"}
    return subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True, check=False)


def timed_places(tree: Path, quick: bool) -> Samples:
    """What `benchmarks.places` measures of the code in a tree."""
    how = ("1", "quick") if quick else (str(REPEATS), "whole")
    result = process(tree, "-m", "benchmarks.places", *how, str(torch.get_num_threads()))
    if result.returncode:
        raise RuntimeError(result.stderr)
    found = json.loads(result.stdout.splitlines()[-1])
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


def command_row(name: str, words: list[str], trees: dict[str, Path], rounds: int) -> dict[str, Any]:
    """CPU time (s) of a command that imports little."""
    spent: dict[str, list[Clock]] = {tree: [] for tree in trees}
    for _ in range(rounds):
        for tree, path in trees.items():
            before = os.times()
            process(path, "-m", f"kd_mil.{words[0]}", *words[1:])
            after = os.times()
            cpu = after.children_user + after.children_system - before.children_user - before.children_system
            spent[tree].append(Clock(cpu, cpu))
    row = timed_row(f"`{name}`, CPU", spent)
    seconds = median(clock.cpu for clock in spent["now"])
    row["goal"] = f"<= {MOST_CPU_S:g} s"
    return row | {"reached_goal": {"value": round(seconds, 2), "reached": seconds <= MOST_CPU_S}}
