"""Record of resolution distillation: `python experiments/resolution_summary.py RUNS OUT.json [--pool fold]`.

RUNS holds `teacher/*`, `baseline/*`, `kd/*`, `kd_ad/*` run directories named `key=value,key=value`, perhaps also
`kd_ad_half/*` (fewer unlabelled images) and `kd_soft/*`, `kd_maxpool/*`, `kd_bicubic/*` (resizing). Writes the scores
of every run and the paired bootstrap of each student against the baseline of the same seed (or fold) and resolution,
and prints a table.
`--pool fold`: the test images of all folds are put together first.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from kd_mil.core.tables import read_table
from kd_mil.evaluation.bootstrap import bootstrap, bootstrap_difference
from kd_mil.reporting.runs import Run

SHOWN = ("accuracy", "f1")


class Decisions(NamedTuple):
    """What one run (or the runs of all folds) decided on the test images."""

    kind: str
    downsample: float
    repeat: str
    labels: Tensor
    decided: Tensor
    cases: list[str]
    classes: int
    report: dict[str, Any]
    record: dict[str, Any]


def read_decisions(directory: Path) -> Decisions:
    """The student's (or only) network of a finished run."""
    run = Run(directory)
    if not run.finished:
        raise SystemExit(f"{directory} is not finished")
    roles = json.loads((directory / "report.json").read_text())["roles"]
    role = "student" if "student" in roles else next(iter(roles))
    images = read_table(directory / "images.csv", ("image_id", "case_id", "label")).sort_values("image_id")
    names = [name.removeprefix(f"{role}_prob_") for name in images if name.startswith(f"{role}_prob_")]
    probs = torch.tensor(images[[f"{role}_prob_{name}" for name in names]].to_numpy(dtype=np.float64))
    labels = torch.tensor([names.index(label) for label in images["label"]])
    settings = dict(text.split("=") for text in directory.name.split(","))
    settings.pop("downsample", None)
    repeat = ",".join(f"{key}={value}" for key, value in settings.items())
    what = directory.parent.name, roles[role]["downsample"], repeat
    return Decisions(*what, labels, probs.argmax(1), images["case_id"].tolist(), len(names), roles[role], run.record)


def pooled(runs: list[Decisions]) -> list[Decisions]:
    """One for each kind and resolution: all test images of all folds."""
    groups: dict[tuple[str, float], list[Decisions]] = {}
    for run in runs:
        groups.setdefault((run.kind, run.downsample), []).append(run)
    return [
        some[0]._replace(
            repeat=f"{len(some)} folds",
            labels=torch.cat([fold.labels for fold in some]),
            decided=torch.cat([fold.decided for fold in some]),
            cases=[case for fold in some for case in fold.cases],
        )
        for some in groups.values()
    ]


def describe(run: Decisions, baseline: Decisions | None) -> dict[str, Any]:
    """Scores with intervals, cost, and the gain over the baseline on the same images."""
    plain = bootstrap(run.labels, run.decided, run.classes, cases=run.cases)
    balanced = bootstrap(run.labels, run.decided, run.classes, balanced=True)
    entry = {
        "kind": run.kind,
        "downsample": run.downsample,
        "repeat": run.repeat,
        "test_images": len(run.labels),
        "cost": run.report["cost"],
        "scores": {name: plain[name]._asdict() for name in SHOWN},
        "scores_class_balanced": {name: balanced[name]._asdict() for name in SHOWN},
    }
    if baseline is not None:
        gain = bootstrap_difference(run.labels, run.decided, baseline.decided, run.classes, cases=run.cases)
        entry["gain_over_baseline"] = {name: gain[name]._asdict() for name in SHOWN}
    return entry


def summarise(runs: list[Decisions]) -> list[dict[str, Any]]:
    """Every run next to the baseline of its resolution and repeat."""
    baselines = {(run.downsample, run.repeat): run for run in runs if run.kind == "baseline"}
    order = ("teacher", "baseline", "kd", "kd_soft", "kd_maxpool", "kd_bicubic", "kd_ad_half", "kd_ad")
    ranked = sorted(runs, key=lambda run: (run.downsample, order.index(run.kind), run.repeat))
    return [
        describe(run, baselines.get((run.downsample, run.repeat)) if run.kind.startswith("kd") else None)
        for run in ranked
    ]


def markdown(entries: list[dict[str, Any]]) -> str:
    """A row for each network and resolution: mean over the repeats, their values, mean gain with its interval."""
    lines = [
        "| side / original | network | MMAC | accuracy, % | each run | macro F1, % "
        "| gain over baseline, points (95 % interval of each run) |",
        "|---|---|---|---|---|---|---|",
    ]
    groups: dict[tuple[float, str], list[dict[str, Any]]] = {}
    for entry in entries:
        groups.setdefault((entry["downsample"], entry["kind"]), []).append(entry)
    for (downsample, kind), some in groups.items():
        accuracy, f1 = ([100 * entry["scores"][name]["mean"] for entry in some] for name in SHOWN)
        gains = [entry["gain_over_baseline"]["accuracy"] for entry in some if "gain_over_baseline" in entry]
        told = "; ".join(f"{100 * g['mean']:+.1f} ({100 * g['low']:+.1f} to {100 * g['high']:+.1f})" for g in gains)
        each = " ".join(f"{value:.1f}" for value in accuracy)
        lines.append(
            f"| 1/{downsample:g} | {kind} | {1000 * some[0]['cost']['gmac']:.3g} | {statistics.fmean(accuracy):.1f} "
            f"| {each} | {statistics.fmean(f1):.1f} | {told or '-'} |"
        )
    return "\n".join(lines)


def facts(record: dict[str, Any]) -> dict[str, Any]:
    """What a run was, without the places of one machine."""
    places = ("hydra.", "method.teacher_ckpt=")
    overrides = [text for text in record["overrides"] if not text.startswith(places)]
    return {"overrides": overrides, "data_fingerprint": record["data_fingerprint"]}


def main() -> None:
    """Parse the command line, write the record, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--pool", choices=["fold"])
    arguments = parser.parse_args()
    found = sorted(path.parent for path in arguments.runs.glob("*/*/report.json"))
    runs = [read_decisions(directory) for directory in found]
    entries = summarise(pooled(runs) if arguments.pool else runs)
    record = {
        "runs": [{"name": f"{run.kind} 1/{run.downsample:g} {run.repeat}", **facts(run.record)} for run in runs],
        "git_commits": sorted({str(run.record["git_commit"]) for run in runs}),
        "versions": runs[0].record["versions"],
        "data_counts": runs[0].record["data_counts"],
        "entries": entries,
    }
    arguments.out.write_text(json.dumps(record, indent=1) + "\n")
    print(markdown(entries))


if __name__ == "__main__":
    main()
