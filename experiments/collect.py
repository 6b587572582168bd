"""Collect finished runs into a record: `python experiments/collect.py OUT.json RUN_DIR [RUN_DIR ...]`.

Writes every run's test metrics, with mean and standard deviation per experiment, and prints a Markdown table.
"""

import argparse
import json
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

SHOWN = ("bag_auroc", "bag_accuracy", "instance_auroc", "instance_ap", "instance_f1")


def collect(directories: list[Path]) -> dict[str, Any]:
    """Results by experiment: overrides, and for each test metric mean, sd and all values in the same order."""
    runs = defaultdict(list)
    for directory in sorted(directories):
        run = json.loads((directory / "run.json").read_text())
        if run["status"] != "finished":
            raise SystemExit(f"{directory} is not finished")
        runs[run["experiment"]].append((run, json.loads((directory / "metrics.json").read_text())))
    return {experiment: summarise(found) for experiment, found in sorted(runs.items())}


def summarise(found: list[tuple[dict[str, Any], dict[str, float]]]) -> dict[str, Any]:
    """One experiment's runs in one table."""
    records, metrics = [run for run, _ in found], [values for _, values in found]
    return {
        "overrides": [[text for text in run["overrides"] if not text.startswith("hydra.")] for run in records],
        "seeds": [run["seed"] for run in records],
        "git_commits": sorted({str(run["git_commit"]) for run in records}),
        "data_fingerprints": [run["data_fingerprint"] for run in records],
        "data_counts": [run.get("data_counts", run.get("bags")) for run in records],
        "wall_seconds": [run["wall_seconds"] for run in records],
        "threads": sorted({run["threads"] for run in records}),
        "device": sorted({run["device"] for run in records}),
        "versions": records[0]["versions"],
        "test": {
            name.removeprefix("test/"): spread([values[name] for values in metrics])
            for name in metrics[0]
            if name.startswith("test/")
        },
    }


def spread(values: list[float | None]) -> dict[str, Any]:
    """Mean and standard deviation over the defined values, and all of them."""
    defined = [value for value in values if value is not None]
    return {
        "mean": statistics.fmean(defined) if defined else None,
        "sd": statistics.stdev(defined) if len(defined) > 1 else None,
        "values": values,
    }


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
