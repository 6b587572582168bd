"""Collect finished runs into a record: `python experiments/collect.py OUT.json RUN_DIR [RUN_DIR ...]`.

Writes every run's test metrics, with mean and standard deviation per experiment, and prints a Markdown table.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kd_mil.reporting.runs import Run
from kd_mil.reporting.spread import mean_and_sd

SHOWN = ("bag_auroc", "bag_accuracy", "instance_auroc", "instance_ap", "instance_f1")


def collect(directories: Sequence[Path]) -> dict[str, Any]:
    """Results by experiment: overrides, and for each test metric mean, sd and all values in the same order."""
    runs: dict[str, list[Run]] = {}
    for run in map(Run, sorted(directories)):
        if not run.finished:
            raise SystemExit(f"{run.directory} is not finished")
        runs.setdefault(run.experiment, []).append(run)
    return {experiment: summarise(found) for experiment, found in sorted(runs.items())}


def summarise(runs: Sequence[Run]) -> dict[str, Any]:
    """One experiment's runs in one table."""
    records = [run.record for run in runs]
    return {
        "overrides": [without_hydra(run) for run in runs],
        "seeds": [record["seed"] for record in records],
        "git_commits": sorted({str(record["git_commit"]) for record in records}),
        "data_fingerprints": [record["data_fingerprint"] for record in records],
        "data_counts": [record["data_counts"] for record in records],
        "wall_seconds": [record["wall_seconds"] for record in records],
        "threads": sorted({record["threads"] for record in records}),
        "device": sorted({record["device"] for record in records}),
        "versions": records[0]["versions"],
        "test": test_scores(runs),
    }


def without_hydra(run: Run) -> list[str]:
    """The settings of a run as they were given, but for where it was to lie."""
    return [text for text in run.record["overrides"] if not text.startswith("hydra.")]


def test_scores(runs: Sequence[Run]) -> dict[str, dict[str, Any]]:
    """Every test metric over the runs."""
    names = [name for name in runs[0].metrics if name.startswith("test/")]
    return {name.removeprefix("test/"): spread([run.metrics[name] for run in runs]) for name in names}


def spread(values: Sequence[float | None]) -> dict[str, Any]:
    """Mean and standard deviation over the defined values, and all of them."""
    mean, sd = mean_and_sd(values)
    return {"mean": mean, "sd": sd, "values": list(values)}


def markdown(results: dict[str, Any]) -> str:
    """Mean +- sd of the main test metrics, a row for each role of each experiment."""
    lines = ["| experiment | role | runs | " + " | ".join(SHOWN) + " |", "|---|---|---|" + "---|" * len(SHOWN)]
    for experiment, result in results.items():
        for role in dict.fromkeys(name.split("/")[0] for name in result["test"]):
            cells = [cell(result["test"].get(f"{role}/{name}")) for name in SHOWN]
            lines.append(f"| {experiment} | {role} | {len(result['seeds'])} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cell(entry: dict[str, Any] | None) -> str:
    """`mean +- sd`, or what there is of it."""
    if entry is None or entry["mean"] is None:
        return "-"
    return f"{entry['mean']:.3f}" + ("" if entry["sd"] is None else f" ± {entry['sd']:.3f}")


def main() -> None:
    """Parse the command line, write the record, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    arguments = parser.parse_args()
    results = collect(arguments.runs)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(results, indent=1) + "\n")
    print(markdown(results))


if __name__ == "__main__":
    main()
