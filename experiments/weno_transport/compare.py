"""The student of `weno_transport` against the best reading of its teacher alone: runs in, results.json and a table out.

python experiments/weno_transport/compare.py results.json kather=runs/kather colon=runs/colon

Each folder holds the runs of `weno_transport` and of `mil` with `select=best` and `select=last`. Runs are paired by
what they were started with; the reference is, for each data set and metric, the reading and epoch with the highest
test mean, which favours the teacher.
"""

import json
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean

from kd_mil.reporting.runs import Run, find_runs

READINGS = ("attention", "attention_x_bag", "bag_of_one", "bag_of_one_x_bag", "instance_stream")
Pairs = dict[tuple[str, str], dict[str, dict[str, float | None]]]
METRICS = ("instance_auroc", "instance_auroc_within", "instance_auroc_per_bag")
NAMES = ("pooled", "within positive bags", "mean per bag")


def pair_of(run: Run) -> tuple[str, str]:
    """(set, seed) of a run: the ratio or fold of its data, where it has several, and its seed."""
    chosen = run.overrides
    return chosen.get("data.positive_ratio", "fold " + chosen.get("data.fold", "0")), chosen["seed"]


def read(folder: Path) -> Pairs:
    """Test AUROCs by pair, then by network: `student`, `teacher`, `alone best`, `alone last`."""
    found: dict[tuple[str, str], dict[str, dict[str, float | None]]] = defaultdict(dict)
    for run in (run for run in find_runs([folder]) if run.finished):
        if run.experiment == "weno_transport":
            for role in ("student", "teacher"):
                found[pair_of(run)][role] = aurocs(run.metrics, role)
        else:
            found[pair_of(run)][f"alone {run.record['select']}"] = aurocs(run.metrics, "model")
    return found


def aurocs(metrics: dict[str, float | None], role: str) -> dict[str, float | None]:
    """The AUROCs of a role on the test part, by the rest of their names."""
    start = f"test/{role}/"
    chosen = [key for key in metrics if key.startswith(start) and "auroc" in key]
    return {key.removeprefix(start): metrics[key] for key in chosen}


def compare(
    pairs: dict[tuple[str, str], dict[str, dict[str, float | None]]], metric: str, reading: str
) -> dict[str, object]:
    """The student, read alone or times its bag, against the best reading of the lone teacher."""
    chosen = [pair for pair in sorted(pairs) if len(pairs[pair]) == 4]
    candidates = {
        (epoch, name): [pairs[pair][f"alone {epoch}"][f"{name}/{metric}"] for pair in chosen]
        for epoch in ("best", "last")
        for name in READINGS
        if all(f"{name}/{metric}" in pairs[pair][f"alone {epoch}"] for pair in chosen)
    }
    epoch, name = max(candidates, key=lambda key: mean(candidates[key]))
    reference = candidates[epoch, name]
    student = [pairs[pair]["student"][reading + metric] for pair in chosen]
    return {
        "reference": f"{name}, {epoch} epoch",
        "alone": round(mean(reference), 4),
        "student": round(mean(student), 4),
        "above": sum(ours > theirs for ours, theirs in zip(student, reference, strict=True)),
        "pairs": len(chosen),
    }


def main() -> None:
    """Print the table, write every value."""
    out, *sources = sys.argv[1:]
    results: dict[str, object] = {}
    print("| set | AUROC | best reading of the teacher alone | student | above it |\n|---|---|---|---|---|")
    for source in sources:
        name, folder = source.split("=", 1)
        pairs = read(Path(folder))
        groups = sorted({of for of, _ in pairs}) if name == "kather" else [None]
        for group in groups:
            own = {pair: runs for pair, runs in pairs.items() if group in (None, pair[0])}
            for metric, label in zip(METRICS, NAMES, strict=True):
                for reading, how in (("", ""), ("instance_x_bag/", ", student x bag")):
                    if reading and metric != "instance_auroc":
                        continue
                    row = compare(own, metric, reading)
                    print(
                        f"| {name} {group or ''} | {label}{how} | {row['alone']:.3f} ({row['reference']}) "
                        f"| {row['student']:.3f} | {row['above']} of {row['pairs']} |"
                    )
        results[name] = {f"{of}, seed {seed}": runs for (of, seed), runs in sorted(pairs.items())}
    Path(out).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
