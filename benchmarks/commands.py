"""Commands that compute nothing, a run until its first step, and pictures: an earlier commit and the present code."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.machine import Clock, milliseconds
from benchmarks.trees import copied, earlier, environment, process

BEFORE = "bfb0be1"
"""Before start-up was looked at."""
ROUNDS = 5
COLUMNS = ("what", "clock", "before_median_ms", "now_median_ms", "speedup", "reference_median_ms", "share", "goal")
MISTAKE: tuple[str, ...] = ("kd_mil.run", "experiment=weno_dsmil", "seed=-1")
RUN = ("kd_mil.run", "experiment=weno_dsmil", "data=digits_mil", "trainer=cpu", "trainer.max_epochs=1")
SWEEP = ("-m", *RUN[1:], "seed=0,1")
ONE_BATCH = "loading.limit_batches=1"
LIBRARIES = "import torch, lightning; from sklearn.datasets import load_digits; load_digits()"
DEMO = (
    *("kd_mil.run", "experiment=weno_transport", "data=synthetic_slides", "aggregator=dsmil", "trainer=cpu"),
    *("trainer.max_epochs=10", "loading.num_workers=2"),
)
NO_PICTURES = tuple(f"callbacks.{name}=null" for name in ("figures", "distillation", "slide_maps", "bag_maps"))
MOST_CPU_S, MOST_OVER_LIBRARIES, MOST_PICTURES = 1.0, 1.3, 0.08
Trees = dict[str, Path]


def run(quick: bool) -> dict[str, Any]:
    """Old and new code take turns, a process each; quickly: once, without pictures."""
    rounds = 1 if quick else ROUNDS
    with tempfile.TemporaryDirectory() as folder:
        trees = earlier(made(folder, "before"), BEFORE) | {"now": copied(made(folder, "now"))}
        done = finished_runs(Path(folder), trees)
        rows = [idle_row(name, words, trees, rounds) for name, words in commands(done).items()]
        rows.append(first_step_row(Path(folder), trees, rounds))
        rows += [] if quick else [pictures_row(Path(folder), trees["now"], rounds=2)]
    return {
        "title": "Commands that compute nothing, and the start of a run",
        "note": f"Before: commit {BEFORE}. A process each. CPU time: of the process and those it waits for. First "
        "step: until the line of an epoch of one bag and one batch of instances, validation included, beside "
        "`import torch, lightning` and the same data. Share: of the reference; of pictures, of the run with them.",
        "columns": COLUMNS,
        "rows": rows,
        "goals": [] if quick else [{"goal": f"{row['what']}: {row['goal']}"} | row.pop("reached_goal") for row in rows],
    }


def made(folder: str, name: str) -> Path:
    """A new folder in it."""
    (Path(folder) / name).mkdir()
    return Path(folder) / name


def finished_runs(folder: Path, trees: Trees) -> dict[str, tuple[str, str]]:
    """Where each tree has a run and a sweep that have ended."""
    found = {}
    for name, tree in trees.items():
        single, sweep = f"hydra.run.dir={folder / name}_run", f"hydra.sweep.dir={folder / name}_sweep"
        process(tree, "-m", *RUN, single)
        process(tree, "-m", RUN[0], *SWEEP, sweep)
        found[name] = single, sweep
    return found


def commands(done: dict[str, tuple[str, str]]) -> dict[str, dict[str, tuple[str, ...]]]:
    """Words of each command in each tree."""
    everywhere: dict[str, tuple[str, ...]] = {"run --help": ("kd_mil.run", "--help"), "a mistake": MISTAKE}
    same: dict[str, dict[str, tuple[str, ...]]] = {
        name: dict.fromkeys(done, words) for name, words in everywhere.items()
    }
    return same | {
        "list experiments": {"now": ("kd_mil", "list", "experiments")},
        "a run that has ended": {tree: (*RUN, single) for tree, (single, _) in done.items()},
        "a sweep whose runs have ended": {tree: (RUN[0], *SWEEP, sweep) for tree, (_, sweep) in done.items()},
    }


def idle_row(name: str, words: Mapping[str, tuple[str, ...]], trees: Trees, rounds: int) -> dict[str, Any]:
    """CPU time of a command."""
    spent: dict[str, list[Clock]] = {tree: [] for tree in words}
    for _ in range(rounds):
        for tree, command in words.items():
            before = os.times()
            process(trees[tree], "-m", *command, code=2 if command == MISTAKE else 0)
            after = os.times()
            cpu = after.children_user + after.children_system - before.children_user - before.children_system
            spent[tree].append(Clock(cpu, cpu))
    seconds = median(clock.cpu for clock in spent["now"])
    return row_of(name, "CPU", spent, f"<= {MOST_CPU_S:g} s", round(seconds, 2), seconds <= MOST_CPU_S)


def first_step_row(folder: Path, trees: Trees, rounds: int) -> dict[str, Any]:
    """Seconds from the start of a process to the line of its first, very short epoch."""
    spent: dict[str, list[Clock]] = {name: [] for name in (*trees, "reference")}
    for number in range(rounds):
        for name, tree in trees.items():
            words = (*RUN, ONE_BATCH, f"hydra.run.dir={folder / name}_{number}")
            spent[name].append(seconds_to_line(tree, words, "epoch 1/"))
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", LIBRARIES], capture_output=True, check=True)
        spent["reference"].append(Clock(time.perf_counter() - start, 0.0))
    share = median(now.wall / other.wall for now, other in zip(spent["now"], spent["reference"], strict=True))
    goal = f"<= {MOST_OVER_LIBRARIES:g}x the libraries and the data"
    row = row_of("a run until its first step", "wall", spent, goal, round(share, 2), share <= MOST_OVER_LIBRARIES)
    return row | {"share": round(share, 2)}


def seconds_to_line(tree: Path, words: tuple[str, ...], line: str) -> Clock:
    """Wall time until a process prints a line that holds the text; then it is left to end."""
    start = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-u", "-m", *words], env=environment(tree), stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        for printed in child.stdout:
            if line in printed:
                seconds = time.perf_counter() - start
                child.communicate()
                return Clock(seconds, 0.0)
    raise RuntimeError(f"{' '.join(words)} never printed {line!r}")


def pictures_row(folder: Path, tree: Path, rounds: int) -> dict[str, Any]:
    """Share of a short run on slides that its pictures take: the run with them, and without."""
    spent: dict[str, list[Clock]] = {"now": [], "reference": []}
    cache = f"paths.cache_dir={folder / 'cache'}"
    process(tree, "-m", *DEMO, cache, f"hydra.run.dir={folder / 'first'}")  # makes the slides
    for number in range(rounds):
        for name, more in (("now", ()), ("reference", NO_PICTURES)):
            where = f"hydra.run.dir={folder / f'pictures_{name}_{number}'}"
            start = time.perf_counter()
            process(tree, "-m", *DEMO, cache, where, *more)
            spent[name].append(Clock(time.perf_counter() - start, 0.0))
    share = 1 - median(bare.wall / whole.wall for whole, bare in zip(spent["now"], spent["reference"], strict=True))
    goal = f"pictures <= {100 * MOST_PICTURES:g} % of it"
    row = row_of("a short run on slides", "wall", spent, goal, round(share, 3), share <= MOST_PICTURES)
    return row | {"share": round(share, 3)}


def row_of(
    what: str, clock: str, spent: Mapping[str, list[Clock]], goal: str, value: float, reached: bool
) -> dict[str, Any]:
    """Times of the trees, and the goal."""
    row: dict[str, Any] = {"what": what, "clock": clock}
    for name, clocks in spent.items():
        row |= milliseconds(name, clocks)
    if "before" in spent:
        row["speedup"] = round(row["before_median_ms"] / row["now_median_ms"], 2)
    return row | {"goal": goal, "reached_goal": {"value": value, "reached": reached}}
