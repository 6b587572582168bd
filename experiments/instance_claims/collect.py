"""Who scores instances best: python experiments/instance_claims/collect.py OUT [RESULTS.json].

OUT is the folder of run.sh. A row for each way to score, three AUROCs on test bags, means over the runs of a set; and
how often, and by how much, a way is above the best reading of the lone teacher, the one with the highest test mean of
its column, which favours the teacher.
"""

import json
import sys
from pathlib import Path
from statistics import mean

import numpy as np

from kd_mil.reporting.runs import Run

METRICS = ("instance_auroc_within", "instance_auroc_per_bag", "instance_auroc")
READINGS = ("attention", "attention_x_bag", "bag_of_one", "bag_of_one_x_bag")
X_BAG = "instance_x_bag/"
WAYS = {
    "max": ("max", "model"),
    "naive": ("naive", "student"),
    "weno": ("weno", "student"),
    "weno_bag_of_one": ("weno_bag_of_one", "student"),
    "sela_mil": ("sela_mil", "model"),
    "ins": ("ins", "model"),
    "dmkd_style": ("dmkd_style", "student"),
    "weno_transport": ("weno_transport", "student"),
    "supervised": ("supervised", "model"),
}
BAGS = {
    "alone, best": ("alone_best", "model"),
    "alone, last": ("alone_last", "model"),
    "weno, teacher": ("weno", "teacher"),
    "weno_transport, teacher": ("weno_transport", "teacher"),
    "weno_transport, student": ("weno_transport", "student"),
}
"""Whose AUROC of whole bags is kept beside."""
RESAMPLES = 10_000
Scores = dict[str, dict[str, float]]
"""AUROC by name of run, of each metric."""


def finished(folder: Path) -> dict[str, dict[str, float]]:
    """Metrics of the finished runs of a folder, by name of run."""
    runs = [Run(path) for path in sorted(folder.glob("[0-9]*"))]
    return {run.directory.name: run.metrics for run in runs if run.finished}


def bags(folder: Path) -> dict[str, dict[str, float]]:
    """Test AUROC of whole bags, of every run."""
    return {
        name: {run: round(metrics[f"test/{role}/bag_auroc"], 5) for run, metrics in finished(folder / method).items()}
        for name, (method, role) in BAGS.items()
    }


def scores(folder: Path, role: str, reading: str = "") -> Scores:
    """The test AUROCs of a role, as one reading has them, of all finished runs of a folder."""
    keys = {metric: f"test/{role}/{reading}{metric}" for metric in METRICS}
    return {
        name: {metric: round(metrics[key], 5) for metric, key in keys.items() if metrics.get(key) is not None}
        for name, metrics in finished(folder).items()
    }


def rows(folder: Path) -> dict[str, Scores]:
    """All rows of one set, those without runs left out."""
    found = {
        f"alone, {reading}, {epoch}": scores(folder / f"alone_{epoch}", "model", f"{reading}/")
        for epoch in ("best", "last")
        for reading in READINGS
    }
    for name, (method, role) in WAYS.items():
        found[name] = scores(folder / method, role)
    found["weno x bag"] = scores(folder / "weno", "student", X_BAG)
    found["weno_transport x bag"] = scores(folder / "weno_transport", "student", X_BAG)
    return {name: values for name, values in found.items() if values}


def gain(ours: Scores, theirs: Scores, metric: str) -> dict[str, float | int]:
    """Paired difference with a 95 % bootstrap interval over runs, and in how many pairs it is above 0."""
    names = [name for name in ours if metric in ours[name] and metric in theirs.get(name, {})]
    differences = np.array([ours[name][metric] - theirs[name][metric] for name in names])
    if not names:
        return {"pairs": 0}
    resampled = differences[np.random.default_rng(0).integers(0, len(names), (RESAMPLES, len(names)))].mean(1)
    low, high = np.percentile(resampled, [2.5, 97.5])
    return {
        "mean": round(float(differences.mean()), 4),
        "low": round(float(low), 4),
        "high": round(float(high), 4),
        "above": int((differences > 0).sum()),
        "pairs": len(names),
    }


def average(values: Scores, metric: str) -> float:
    """Mean over runs; NaN where no run has it."""
    found = [run[metric] for run in values.values() if metric in run]
    return mean(found) if found else float("nan")


def table(name: str, found: dict[str, Scores]) -> dict[str, dict[str, dict[str, float | int]]]:
    """Print a set as Markdown; the paired gains over the best reading alone."""
    alone = [row for row in found if row.startswith("alone")]
    best = {metric: max(alone, key=lambda row: average(found[row], metric)) for metric in METRICS}
    print(f"\n**{name}**; best reading alone: " + "; ".join(f"{metric} {best[metric]}" for metric in METRICS))
    print("\n| | " + " | ".join(f"{metric} | gain" for metric in METRICS) + " |\n|---|" + "---|" * 2 * len(METRICS))
    gains = {}
    for row, values in found.items():
        gains[row] = {metric: gain(values, found[best[metric]], metric) for metric in METRICS}
        cells = [f"{average(values, metric):.3f} | {as_text(gains[row][metric])}" for metric in METRICS]
        print(f"| {row} | " + " | ".join(cells) + " |")
    return gains


def as_text(value: dict[str, float | int]) -> str:
    """A paired difference as one cell."""
    if not value["pairs"]:
        return ""
    return "{mean:+.3f} [{low:+.3f}, {high:+.3f}], {above} of {pairs}".format(**value)


def main() -> None:
    """Print the tables, write every value."""
    out, target = Path(sys.argv[1]), sys.argv[2:]
    results = {}
    for folder in sorted(path for path in out.iterdir() if path.is_dir()):
        found = rows(folder)
        if any(row.startswith("alone") for row in found):
            gains = table(folder.name, found)
            results[folder.name] = {"runs": found, "gains": gains, "bag_auroc": bags(folder)}
    if target:
        Path(target[0]).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
