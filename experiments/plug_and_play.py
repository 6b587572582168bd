"""Each aggregator alone and as WENO's teacher: `python experiments/plug_and_play.py OUT.json RUN_DIR [RUN_DIR ...]`.

RUN_DIR are finished runs of `experiment=mil_any` and `experiment=weno_any`, in pairs that differ in nothing else.
Writes every value and prints a Markdown table: aggregator alone, WENO's student, and their difference, seed by seed.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from collect import spread

LEVELS = ("instance_auroc", "bag_auroc")
ROLES = {"mil_any": ("model",), "weno_any": ("student", "teacher")}
NOT_OF_A_PAIR = ("experiment=", "seed=", "hpm", "hydra.")


def pairs(directories: list[Path]) -> dict[str, Any]:
    """Values of every aggregator and setting, by seed; only seeds for which both runs are finished count."""
    found: dict[tuple[str, str], dict[str, dict[int, dict[str, float | None]]]] = defaultdict(lambda: defaultdict(dict))
    commits, overrides = set(), {}
    for directory in sorted(directories):
        if not (directory / "metrics.json").exists():
            continue
        run = json.loads((directory / "run.json").read_text())
        if run["status"] != "finished":
            continue
        given = [text for text in run["overrides"] if not text.startswith(NOT_OF_A_PAIR)]
        aggregator = next(text.partition("=")[2] for text in given if text.startswith("aggregator="))
        setting = " ".join(sorted(text for text in given if not text.startswith("aggregator=")))
        metrics = json.loads((directory / "metrics.json").read_text())
        found[setting, aggregator][run["experiment"]][run["seed"]] = metrics
        commits.add(str(run["git_commit"]))
        overrides[run["experiment"]] = [text for text in run["overrides"] if text.startswith("hpm")]
    rows = [summarise(*key, runs) for key, runs in sorted(found.items())]
    return {"git_commits": sorted(commits), "hpm": overrides, "rows": [row for row in rows if row["seeds"]]}


def summarise(setting: str, aggregator: str, runs: dict[str, dict[int, dict[str, float | None]]]) -> dict[str, Any]:
    """One aggregator on one data set; one that cannot teach (`mean` has no attention) stands alone."""
    alone, taught = runs.get("mil_any", {}), runs.get("weno_any", {})
    seeds = sorted(set(alone) & set(taught)) if taught else sorted(alone)
    row: dict[str, Any] = {"setting": setting, "aggregator": aggregator, "seeds": seeds}
    for level in LEVELS:
        values = {
            f"{experiment}/{role}": [runs[experiment][seed].get(f"test/{role}/{level}") for seed in seeds]
            for experiment, roles in ROLES.items()
            for role in roles
            if experiment in runs and seeds
        }
        row[level] = {name: spread(series) for name, series in values.items()}
        pairs = zip(values.get("mil_any/model", []), values.get("weno_any/student", []), strict=False)
        changes = [after - before for before, after in pairs if before is not None and after is not None]
        if changes:
            row[level]["difference"] = spread(list(changes))
    return row


def markdown(results: dict[str, Any]) -> str:
    """Means, and the smallest and largest difference between paired seeds."""
    head = "alone | WENO student | difference (smallest to largest)"
    lines = [f"| setting | aggregator | seeds | instances: {head} | bags: {head} |", "|---|---|---|" + "---|" * 6]
    for row in results["rows"]:
        cells = [row["setting"], row["aggregator"], str(len(row["seeds"]))]
        for level in LEVELS:
            means = [row[level].get(name, {}).get("mean") for name in ("mil_any/model", "weno_any/student")]
            cells += ["-" if mean is None else f"{mean:.3f}" for mean in means]
            change = row[level].get("difference")
            span = "" if change is None else f"({min(change['values']):+.3f} to {max(change['values']):+.3f})"
            cells.append("-" if change is None else f"{change['mean']:+.3f} {span}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Parse the command line, write the record, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    arguments = parser.parse_args()
    results = pairs(arguments.runs)
    if not results["rows"]:
        raise SystemExit("no pair of finished runs of mil_any and weno_any among these directories")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(results, indent=1) + "\n")
    print(markdown(results))


if __name__ == "__main__":
    main()
