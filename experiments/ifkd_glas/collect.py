"""Collect the runs of run.sh: `python experiments/ifkd_glas/collect.py OUT_OF_RUN_SH`; writes results.json beside it.

Prints a Markdown table with every value; lines without a finished run are left out.
"""

import json
import statistics
import sys
from pathlib import Path
from typing import Any

import torch

from kd_mil.reporting.runs import Run

LINES = (
    ("class activation map", "cam", "model"),
    ("teacher, stage one", "no_switch", "teacher"),
    ("student, no switch", "no_switch", "student"),
    ("student, with switches", "switch", "student"),
    ("U-Net on masks", "unet", "model"),
)
METRICS = ("pixel_f1", "pixel_f1_pos", "pixel_f1_neg", "pixel_iou", "pixel_iou_pos", "pixel_dice", "image_auroc")


def line(name: str, folder: Path, role: str) -> dict[str, Any] | None:
    """All test values of one role over the finished seeds."""
    runs = [run for run in map(Run, sorted(folder.glob("[0-9]*"))) if run.finished]
    if not runs:
        return None
    records = [run.record for run in runs]
    last = [torch.load(run.directory / "checkpoints" / "last.ckpt", weights_only=True) for run in runs]
    states = [checkpoint["state_dict"] for checkpoint in last]
    return {
        "line": name,
        "seeds": [record["seed"] for record in records],
        "selected_by": sorted({record["selected_by"] for record in records}),
        "switches": [int(state["switches"]) if "switches" in state else None for state in states],
        "overrides": [[text for text in record["overrides"] if "hydra." not in text] for record in records],
        "git_commits": sorted({record["git_commit"] for record in records}),
        "data_fingerprints": sorted({record["data_fingerprint"] for record in records}),
        "data_counts": records[0]["data_counts"],
        "versions": records[0]["versions"],
        "test": {
            key.removeprefix(f"test/{role}/"): [run.metrics[key] for run in runs]
            for key in runs[0].metrics
            if key.startswith(f"test/{role}/")
        },
    }


def main(out: Path) -> None:
    """Write results.json and print the table."""
    found = [line(name, out / folder, role) for name, folder, role in LINES]
    results = [entry for entry in found if entry is not None]
    Path(__file__).with_name("results.json").write_text(json.dumps(results, indent=1) + "\n")
    print("| line | seeds | " + " | ".join(METRICS) + " |")
    print("|---|---|" + "---|" * len(METRICS))
    for entry in results:
        values = [entry["test"][name] for name in METRICS]
        cells = [f"**{statistics.fmean(some):.3f}** ({' '.join(f'{value:.3f}' for value in some)})" for some in values]
        print(f"| {entry['line']} | {len(entry['seeds'])} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
