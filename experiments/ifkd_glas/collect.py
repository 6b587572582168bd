"""Collect the runs of run.sh: `python experiments/ifkd_glas/collect.py OUT_OF_RUN_SH`; writes results.json beside it.

Prints a Markdown table with every value; lines without a finished run are left out.
"""

import json
import statistics
import sys
from pathlib import Path
from typing import Any

import torch

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
    found = []
    for directory in sorted(folder.glob("[0-9]*")):
        record = json.loads((directory / "run.json").read_text()) if (directory / "run.json").exists() else {}
        if record.get("status") == "finished":
            found.append((directory, record, json.loads((directory / "metrics.json").read_text())))
    if not found:
        return None
    states = [torch.load(path / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for path, *_ in found]
    return {
        "line": name,
        "seeds": [record["seed"] for _, record, _ in found],
        "selected_by": sorted({record["selected_by"] for _, record, _ in found}),
        "switches": [int(state["switches"]) if "switches" in state else None for state in states],
        "overrides": [[text for text in record["overrides"] if "hydra." not in text] for _, record, _ in found],
        "git_commits": sorted({record["git_commit"] for _, record, _ in found}),
        "data_fingerprints": sorted({record["data_fingerprint"] for _, record, _ in found}),
        "data_counts": found[0][1]["data_counts"],
        "versions": found[0][1]["versions"],
        "test": {
            key.removeprefix(f"test/{role}/"): [metrics[key] for *_, metrics in found]
            for key in found[0][2]
            if key.startswith(f"test/{role}/")
        },
    }


def main(out: Path) -> None:
    """Write results.json and print the table."""
    found = [line(name, out / place, role) for name, place, role in LINES]
    results = [one for one in found if one is not None]
    Path(__file__).with_name("results.json").write_text(json.dumps(results, indent=1) + "\n")
    print("| line | seeds | " + " | ".join(METRICS) + " |")
    print("|---|---|" + "---|" * len(METRICS))
    for one in results:
        cells = [" ".join(f"{value:.3f}" for value in one["test"][name]) for name in METRICS]
        means = [
            f"**{statistics.fmean(one['test'][name]):.3f}** ({cell})" for name, cell in zip(METRICS, cells, strict=True)
        ]
        print(f"| {one['line']} | {len(one['seeds'])} | " + " | ".join(means) + " |")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
