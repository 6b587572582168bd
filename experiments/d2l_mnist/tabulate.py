"""Fig. 2 of Distill-to-Label from finished runs: `python experiments/d2l_mnist/tabulate.py ROOT OUT_FOLDER`.

ROOT is that of `run.sh`. Writes `results.json` and `auroc.png`, and prints the Markdown table.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from kd_mil.reporting.runs import Run, find_runs

NAMES = {"off": "MIL", "random": "MIL with VAT"}
METRICS = ("bag_auroc", "bag_loss", "instance_auroc", "instance_f1")


def read(root: Path) -> dict[str, Any]:
    """Values of all seeds by kind, number of bags, and metric."""
    values: dict[str, Any] = {}
    finished = sorted((run for run in find_runs([root]) if run.finished), key=position)
    for run in finished:
        kind, bags, _ = run.directory.parts[-3:]
        by_metric = values.setdefault(kind, {}).setdefault(bags, {})
        for name in METRICS:
            by_metric.setdefault(name, []).append(run.metrics[f"test/teacher/{name}"])
    facts = ("overrides", "data_counts", "wall_seconds", "threads", "git_commit")
    return {"values": values, "runs": [{key: run.record[key] for key in facts} for run in finished]}


def position(run: Run) -> tuple[str, int, str]:
    """Sorting key of `ROOT/KIND/BAGS/SEED`."""
    kind, bags, seed = run.directory.parts[-3:]
    return kind, int(bags), seed


def markdown(results: dict[str, Any]) -> str:
    """All seeds' bag AUROC and the means."""
    lines = ["| | training bags | bag AUROC, all seeds | mean | instance AUROC, mean |", "|---|---|---|---|---|"]
    for kind, by_bags in results["values"].items():
        for bags, by_metric in by_bags.items():
            areas = " ".join(f"{value:.3f}" for value in by_metric["bag_auroc"])
            mean, instance = (statistics.fmean(by_metric[name]) for name in ("bag_auroc", "instance_auroc"))
            lines.append(f"| {NAMES[kind]} | {bags} | {areas} | **{mean:.3f}** | {instance:.3f} |")
    return "\n".join(lines)


def figure_of(results: dict[str, Any]) -> Figure:
    """Bag AUROC against the number of training bags: a line through the means, a dot for each seed."""
    figure = Figure(figsize=(4.6, 3.2), layout="constrained")
    axes = figure.subplots()
    for kind, colour in (("off", "0.5"), ("random", "tab:blue")):
        by_bags = results["values"].get(kind, {})
        ticks = list(range(len(by_bags)))
        areas = [by_metric["bag_auroc"] for by_metric in by_bags.values()]
        axes.plot(ticks, list(map(statistics.fmean, areas)), color=colour, marker="o", label=NAMES[kind])
        for tick, values in zip(ticks, areas, strict=True):
            axes.plot([tick] * len(values), values, ".", color=colour, alpha=0.6)
        axes.set_xticks(ticks, list(by_bags))
    axes.set(xlabel="training bags", ylabel="bag AUROC, 1000 test bags", title="MNIST, 10 digits a bag")
    axes.legend(frameon=False, loc="lower right")
    return figure


def main() -> None:
    """Parse the command line, write the record, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    results = read(arguments.root)
    (arguments.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    figure_of(results).savefig(arguments.out / "auroc.png", dpi=120)
    print(markdown(results))


if __name__ == "__main__":
    main()
