"""Students of one teacher on features, from the runs of `features.sh`: results file and Markdown tables.

python experiments/d2l_colon/features.py ROOT experiments/d2l_colon/lite0.json

Instance labels are read by the scores of the test part alone; which student is preferred is said by validation bags.
"""

import json
import sys
from pathlib import Path
from statistics import fmean, stdev

import numpy as np

from kd_mil.reporting.runs import Run, find_runs

ROWS = {
    "MIL": ("mil", "teacher"),
    "teacher": ("zero", "teacher"),  # all students of a fold and seed have the same
    "student as written": ("written", "student"),
    "negative_bags=zero": ("zero", "student"),
    "zero, from the teacher's weights": ("zero_from_teacher", "student"),
    "reduction=mean": ("mean", "student"),
    "supervised": ("supervised", "model"),
}
OF_A_RUN = ("seed=", "data.fold=", "data.manifest=", "hydra.")
METRICS = (
    "instance_accuracy",
    "instance_f1",
    "instance_auroc",
    "instance_accuracy_tuned",
    "instance_f1_tuned",
    "instance_auroc_within",
    "attention/instance_auroc",
    "bag_of_one_x_bag/instance_auroc",
    "bag_auroc",
)
RESAMPLES = 10_000
Pair = tuple[str, str]
Values = dict[Pair, dict[str, float | None]]


def read(root: Path) -> dict[str, Values]:
    """Test scores and the validation bag loss of each row, by (fold, seed)."""
    runs = by_kind(root)
    found: dict[str, Values] = {row: {} for row in ROWS}
    for row, (kind, role) in ROWS.items():
        for run in runs.get(kind, []):
            scores = {name: run.metrics.get(f"test/{role}/{name}") for name in METRICS}
            found[row][pair_of(run)] = scores | {"val bag_loss": run.metrics.get(f"val/{role}/bag_loss")}
    return found


def made_by(root: Path) -> dict[str, object]:
    """Commits, versions and settings of the runs, those of a row once."""
    records = {kind: [run.record for run in runs] for kind, runs in by_kind(root).items()}
    every = [record for of_kind in records.values() for record in of_kind]
    return {
        "git_commits": sorted({record["git_commit"] for record in every}),
        "data_fingerprints": sorted({record["data_fingerprint"] for record in every}),
        "versions": every[0]["versions"],
        "overrides": {
            kind: [text for text in of_kind[0]["overrides"] if not text.startswith(OF_A_RUN)]
            for kind, of_kind in records.items()
        },
    }


def by_kind(root: Path) -> dict[str, list[Run]]:
    """Finished runs by the name of their row's folder."""
    kinds: dict[str, list[Run]] = {}
    for run in find_runs([root]):
        if run.finished:
            kinds.setdefault(run.directory.parent.name, []).append(run)
    return kinds


def pair_of(run: Run) -> Pair:
    """(fold, seed)."""
    return run.overrides["data.fold"], run.overrides["seed"]


def paired(values: Values, reference: Values, metric: str) -> dict[str, object]:
    """Mean difference over the pairs both have, its 95 % interval by resampling folds, and how many are above 0."""
    pairs = sorted(values.keys() & reference.keys())
    differences = {pair: float(values[pair][metric]) - float(reference[pair][metric]) for pair in pairs}  # type: ignore[arg-type]
    folds = sorted({fold for fold, _ in pairs})
    by_fold = [[differences[pair] for pair in pairs if pair[0] == fold] for fold in folds]
    sums, counts = np.array([sum(own) for own in by_fold]), np.array([len(own) for own in by_fold])
    drawn = np.random.default_rng(0).integers(0, len(folds), (RESAMPLES, len(folds)))
    low, high = np.quantile(sums[drawn].sum(1) / counts[drawn].sum(1), (0.025, 0.975))
    above = sum(value > 0 for value in differences.values())
    return {"mean": fmean(differences.values()), "low": low, "high": high, "above": above, "pairs": len(pairs)}


def markdown(found: dict[str, Values], differences: dict[str, dict[str, dict[str, object]]]) -> str:
    """Means of each row, and what each student gains on its teacher."""
    names = (*METRICS, "val bag_loss")
    lines = ["| | pairs | " + " | ".join(names) + " |", "|---" * (len(names) + 2) + "|"]
    for row, values in found.items():
        lines.append(f"| {row} | {len(values)} | " + " | ".join(cell(values, name) for name in names) + " |")
    lines += ["", "| against the teacher | metric | difference | pairs above |", "|---|---|---|---|"]
    for row, by_metric in differences.items():
        for name, found_ in by_metric.items():
            interval = "{mean:+.3f} [{low:+.3f}, {high:+.3f}] | {above} of {pairs}".format(**found_)
            lines.append(f"| {row} | {name} | {interval} |")
    return "\n".join(lines)


def cell(values: Values, name: str) -> str:
    """Mean over folds and seeds, and the standard deviation of the means of folds; nothing where a run lacks it."""
    if any(scores[name] is None for scores in values.values()):
        return ""
    folds = {fold: [float(own[name]) for (other, _), own in values.items() if other == fold] for fold, _ in values}  # type: ignore[arg-type]
    means = [fmean(own) for own in folds.values()]
    return f"{fmean(means):.3f} ({stdev(means):.3f})" if len(means) > 1 else f"{means[0]:.3f}"


def main(root: Path, out: Path) -> None:
    """Write the record, print the tables."""
    found = {row: values for row, values in read(root).items() if values}
    students = [row for row, (_, role) in ROWS.items() if role == "student" and row in found]
    chosen = METRICS[:6]
    differences = {row: {name: paired(found[row], found["teacher"], name) for name in chosen} for row in students}
    listed = {
        row: {"fold {}, seed {}".format(*pair): own for pair, own in sorted(values.items())}
        for row, values in found.items()
    }
    record = made_by(root) | {"test": listed, "against the teacher": differences}
    out.write_text(json.dumps(record, indent=1) + "\n")
    print(markdown(found, differences))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
