"""Students of one teacher on features, from the runs of `features.sh`: results file and Markdown tables.

python experiments/d2l_colon/features.py ROOT experiments/d2l_colon/lite0.json

Instance labels are read by the scores of the test part alone; which student is preferred is said by validation bags.
"""

import json
import sys
from pathlib import Path
from statistics import fmean

import numpy as np

from kd_mil.reporting.runs import Run, find_runs

ROWS = {
    "MIL": ("mil", "teacher"),
    "teacher": ("zero", "teacher"),  # all students of a fold and seed have the same
    "student as written": ("written", "student"),
    "negative_bags=zero": ("zero", "student"),
    "zero, from the teacher's weights": ("zero_from_teacher", "student"),
    "reduction=mean": ("mean", "student"),
}
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
    runs = [run for run in find_runs([root]) if run.finished]
    found: dict[str, Values] = {row: {} for row in ROWS}
    for row, (kind, role) in ROWS.items():
        for run in (run for run in runs if run.directory.parent.name == kind):
            scores = {name: run.metrics[f"test/{role}/{name}"] for name in METRICS}
            found[row][pair_of(run)] = scores | {"val bag_loss": run.metrics[f"val/{role}/bag_loss"]}
    return found


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
        means = (fmean(float(scores[name]) for scores in values.values()) for name in names)  # type: ignore[arg-type]
        lines.append(f"| {row} | {len(values)} | " + " | ".join(f"{mean:.3f}" for mean in means) + " |")
    lines += ["", "| against the teacher | metric | difference | pairs above |", "|---|---|---|---|"]
    for row, by_metric in differences.items():
        for name, found_ in by_metric.items():
            interval = "{mean:+.3f} [{low:+.3f}, {high:+.3f}] | {above} of {pairs}".format(**found_)
            lines.append(f"| {row} | {name} | {interval} |")
    return "\n".join(lines)


def main(root: Path, out: Path) -> None:
    """Write the record, print the tables."""
    found = {row: values for row, values in read(root).items() if values}
    students = [row for row in found if row not in ("MIL", "teacher")]
    chosen = METRICS[:6]
    differences = {row: {name: paired(found[row], found["teacher"], name) for name in chosen} for row in students}
    listed = {
        row: {"fold {}, seed {}".format(*pair): own for pair, own in sorted(values.items())}
        for row, values in found.items()
    }
    out.write_text(json.dumps({"test": listed, "against the teacher": differences}, indent=1) + "\n")
    print(markdown(found, differences))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
