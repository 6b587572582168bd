"""Measure speed, memory and time to accuracy: `python -m benchmarks [--quick] [--only NAME ...]`.

A benchmark is a module of this folder with `run(quick) -> dict`: `title`, `note`, `rows` (flat), `columns` (keys of
rows to print) and `goals`, each with `goal`, `value` and `reached`. Its name goes into `BENCHMARKS`.
"""

import argparse
import importlib
import os
import platform
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.machine import load_average, machine_facts
from kd_mil import __version__
from kd_mil.core.records import PACKAGES, git_commit
from kd_mil.core.run_files import write_json

BENCHMARKS = (
    "training_loop",
    "released_weno",
    "ranks",
    "growth",
    "aggregators",
    "packing",
    "published_implementations",
    "feature_store",
    "cohort",
    "commands",
    "start_up",
    "slow_places",
    "operations",
    "slides",
    "extraction",
    "restart",
    "segmentation",
    "viewer",
    "time_to_accuracy",
)
RECORDS = Path("experiments/benchmarks")
NO_RECORDS = Path("runs/benchmarks")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmarks asked for, one JSON file each."""
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    commit = git_commit()  # before the first record is written, which is a change
    for name in options.only:
        record = {"benchmark": name, "quick": options.quick} | circumstances(commit, arguments)
        start = time.monotonic()
        record |= importlib.import_module(f"benchmarks.{name}").run(options.quick)
        record["seconds"] = round(time.monotonic() - start, 1)
        record["machine"]["load_average_after"] = load_average()
        record["rows"] = [row | {"spread": spread(row)} for row in record["rows"]]
        path = options.out / f"{name}.json"
        write_json(path, record)
        show(record, path)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Speed, memory and time to accuracy.")
    parser.add_argument(
        "--quick", action="store_true", help=f"small and unreliable, written to {NO_RECORDS}: does it work?"
    )
    parser.add_argument(
        "--only", nargs="+", choices=BENCHMARKS, default=BENCHMARKS, metavar="NAME", help=", ".join(BENCHMARKS)
    )
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1), help="PyTorch threads (2)")
    parser.add_argument("--out", type=Path, help=f"folder of the JSON files ({RECORDS})")
    options = parser.parse_args(arguments)
    options.out = options.out or (NO_RECORDS if options.quick else RECORDS)
    return options


def circumstances(commit: str | None, arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """When, where and with what a benchmark runs."""
    given = sys.argv[1:] if arguments is None else arguments
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python", "-m", "benchmarks", *given]),
        "git_commit": commit,
        "versions": {"kd_mil": __version__, "python": platform.python_version()}
        | {name: version(name) for name in PACKAGES},
        "machine": machine_facts(),
    }


def spread(row: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Repeats, median, smallest and largest of every list of numbers in a row, by its key."""
    lists = {key: value for key, value in row.items() if isinstance(value, list) and value}
    return {
        key: {"repeats": len(values), "median": median(values), "min": min(values), "max": max(values)}
        for key, values in lists.items()
        if all(isinstance(value, int | float) for value in values)
    }


def show(record: dict[str, Any], path: Path) -> None:
    """Print rows and goals."""
    columns = [name for name in record["columns"] if any(row.get(name) is not None for row in record["rows"])]
    table = Table(*(column.replace("_", " ") for column in columns), title=record["title"], caption=record["note"])
    for row in record["rows"]:
        table.add_row(*("" if row.get(column) is None else f"{row[column]}" for column in columns))
    console = Console(width=max(Console().width, 110))
    console.print(table)
    for goal in record["goals"]:
        console.print(
            f"{'reached' if goal['reached'] else 'MISSED'}  {goal['goal']}  ({goal['value']})", highlight=False
        )
    console.print(f"{record['seconds']} s, written to {path}\n", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
