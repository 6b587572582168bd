"""Table I of Distill-to-Label from finished runs: `python experiments/d2l_colon/table_one.py ROOT OUT.json`.

ROOT is that of `run.sh`, or one of `variants.sh`. Writes the record and, for `results.json`, `table.png` beside it, and
prints the Markdown table.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from kd_mil.reporting.runs import Run

METRICS = ("accuracy", "f1", "auroc")
PUBLISHED = {
    "MIL": {
        "accuracy": [0.80, 0.79, 0.69, 0.84, 0.83],
        "f1": [0.47, 0.71, 0.48, 0.68, 0.71],
        "auroc": [0.78, 0.89, 0.87, 0.89, 0.88],
    },
    "teacher": {
        "accuracy": [0.83, 0.84, 0.79, 0.90, 0.88],
        "f1": [0.61, 0.79, 0.64, 0.87, 0.75],
        "auroc": [0.82, 0.92, 0.90, 0.92, 0.91],
    },
    "student": {
        "accuracy": [0.88, 0.90, 0.83, 0.92, 0.90],
        "f1": [0.75, 0.81, 0.75, 0.90, 0.78],
        "auroc": [0.87, 0.92, 0.91, 0.92, 0.92],
    },
}
ROWS = (("MIL", "mil", "teacher"), ("teacher", "d2l", "teacher"), ("student", "d2l", "student"))
FOLDS = "01234"
COLOURS = {"MIL": "0.6", "MIL, attention": "0.8", "teacher": "tab:blue", "student": "tab:red"}


def attention_scores(directory: Path) -> dict[str, float]:
    """Scores of attention scaled to [0, 1] within each bag, over all test instances."""
    rows = pd.read_parquet(directory / "instances.parquet")
    rows["bag_id"] = rows["bag_id"].astype(str)
    low, high = (rows.groupby("bag_id")["attention"].transform(name) for name in ("min", "max"))
    relative = ((rows["attention"] - low) / (high - low)).fillna(1.0)
    decided, labels = relative >= 0.5, rows["label"] > 0
    scores = accuracy_score(labels, decided), f1_score(labels, decided), roc_auc_score(labels, relative)
    return dict(zip(METRICS, map(float, scores), strict=True))


def read(root: Path) -> dict[str, Any]:
    """Values of each row by metric and fold, of the runs that are finished, and how they came about."""
    rows: dict[str, dict[str, dict[str, float]]] = {}
    for row, kind, role in ROWS:
        for run in finished(root / kind):
            for name in (*METRICS, "bag_auroc", "bag_accuracy"):
                key = name if name.startswith("bag_") else f"instance_{name}"
                rows.setdefault(row, {}).setdefault(name, {})[run.directory.name] = run.metrics[f"test/{role}/{key}"]
    for run in finished(root / "mil"):
        for name, value in attention_scores(run.directory).items():
            rows.setdefault("MIL, attention", {}).setdefault(name, {})[run.directory.name] = value
    facts = ("overrides", "data_fingerprint", "data_counts", "wall_seconds", "threads", "versions", "git_commit")
    runs = [run for kind in ("mil", "d2l") for run in finished(root / kind)]
    return {"rows": rows, "published": PUBLISHED, "runs": [{key: run.record[key] for key in facts} for run in runs]}


def finished(folder: Path) -> list[Run]:
    """The folds whose run came to its end."""
    return [run for run in (Run(folder / fold) for fold in FOLDS) if run.finished]


def markdown(results: dict[str, Any]) -> str:
    """All folds' values and means of both."""
    lines = ["| | | " + " | ".join(f"fold {fold}" for fold in FOLDS) + " | mean | published mean |"]
    lines.append("|---|---|" + "---|" * (len(FOLDS) + 2))
    for row, by_metric in results["rows"].items():
        for name, values in by_metric.items():
            published = results["published"].get(row, {}).get(name)
            theirs = f"{statistics.fmean(published):.2f}" if published else ""
            ours = " | ".join(f"{values[fold]:.3f}" if fold in values else "-" for fold in FOLDS)
            lines.append(f"| {row} | {name} | {ours} | **{statistics.fmean(values.values()):.3f}** | {theirs} |")
    return "\n".join(lines)


def figure_of(results: dict[str, Any]) -> Figure:
    """Means as bars, folds as dots, published means as lines."""
    figure = Figure(figsize=(8.4, 3.0), layout="constrained")
    for axes, name in zip(figure.subplots(1, 3, sharey=True), METRICS, strict=True):
        for position, (row, colour) in enumerate(COLOURS.items()):
            values = list(results["rows"].get(row, {}).get(name, {}).values())
            if values:
                axes.bar(position, statistics.fmean(values), color=colour, width=0.7)
                axes.plot([position] * len(values), values, "k.", markersize=4)
            if row in results["published"]:
                level = statistics.fmean(results["published"][row][name])
                axes.plot([position - 0.42, position + 0.42], [level, level], "k--", linewidth=1.4)
        axes.set_title(name)
        axes.set_xticks(range(len(COLOURS)), [row.replace(", ", "\n") for row in COLOURS], fontsize=8)
        axes.set_ylim(0, 1)
    figure.axes[0].set_ylabel("test instances (dashed: published)", fontsize=8)
    return figure


def main() -> None:
    """Parse the command line, write the record, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    results = read(arguments.root)
    arguments.out.write_text(json.dumps(results, indent=1) + "\n")
    if arguments.out.name == "results.json":
        figure_of(results).savefig(arguments.out.with_name("table.png"), dpi=120)
    print(markdown(results))


if __name__ == "__main__":
    main()
