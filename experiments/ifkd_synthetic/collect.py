"""Collect the runs of run.sh: `python experiments/ifkd_synthetic/collect.py OUT_OF_RUN_SH [RESULTS.json]`.

Writes results.json, beside it or as named, prints a Markdown table with every value, and paired differences of the
Dice of positive images with intervals over slides; lines without a finished run are left out.
"""

import json
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kd_mil.reporting.runs import Run

WHOLE = ("mark_everything", "perfect_classifier_x_everything")
"""Alike in all runs: they know the labels at most."""
LINES = (
    ("class activation map", "cam", "model"),
    ("OEEM-style", "oeem", "student"),
    ("OAA-style", "oaa", "student"),
    ("stage one, Dice", "dice", "stage_one"),
    ("stage one, Dice, for all epochs", "teacher_dice", "teacher"),
    ("student, Dice, with switches", "dice", "student"),
    ("stage one, gm_bce", "gm_bce_no_switch", "stage_one"),
    ("stage one, gm_bce, for all epochs", "teacher_gm_bce", "teacher"),
    ("student, gm_bce, no switch", "gm_bce_no_switch", "student"),
    ("student, gm_bce, with switches", "gm_bce", "student"),
    ("stage one, gm_bce, for 68 epochs", "long_teacher", "teacher"),
    ("student, gm_bce, 34 epochs after 34 of stage one", "long_student", "student"),
    ("stage one, pasted, for 34 epochs", "long_student_pasted", "stage_one"),
    ("stage one, pasted, for 68 epochs", "long_teacher_pasted", "teacher"),
    ("student, pasted, 34 epochs after 34 of stage one", "long_student_pasted", "student"),
    ("student, gm_bce, no switch, layer by layer", "layer", "student"),
    ("student, gm_bce, no switch, output alone", "output", "student"),
    ("student, gm_bce, no switch, no pixel cross-entropy", "no_wce", "student"),
    ("student, gm_bce, periodic switches", "periodic", "student"),
    *(
        line
        for name in ("vgg", "resnet", "sa", "swin")
        for line in (
            (f"{name}, stage one for all epochs", f"{name}_teacher", "teacher"),
            (f"{name}, student with switches", f"{name}_student", "student"),
        )
    ),
    ("vgg, stage one for 34 epochs", "vgg_long_student", "stage_one"),
    ("vgg, stage one for 68 epochs", "vgg_long_teacher", "teacher"),
    ("vgg, student, 34 epochs after 34 of stage one", "vgg_long_student", "student"),
    *(
        (f"{name}, {what}", folder, role)
        for name, folder in (
            ("vgg, weights of maps .2 .2 .6", "vgg_deep"),
            ("resnet, weights of maps .2 .2 .6", "resnet_deep"),
            ("vgg, no pixel cross-entropy", "vgg_no_wce"),
            ("no pixel cross-entropy", "long_no_wce"),
            ("output alone", "long_student_output"),
            ("pasted, no pixel cross-entropy", "pasted_no_wce"),
            ("pasted, output alone", "pasted_output"),
            ("pasted, 68 epochs after 34, roles switched where better", "pasted_switched"),
            ("pasted, 102 epochs after 34, roles switched every 34", "pasted_periodic"),
            ("pasted, 102 epochs after 34, no switch", "pasted_never"),
            ("vgg, weights of maps .2 .2 .6, pasted", "vgg_deep_pasted"),
            ("swin", "swin_long_student"),
            ("Dice", "dice_long_student"),
        )
        for what, role in (("stage one for 34 epochs", "stage_one"), ("its student", "student"))
    ),
    ("sa, stage one for 20 epochs", "sa_short", "stage_one"),
    ("sa, its student of 20 epochs", "sa_short", "student"),
    ("stage one, pasted, for 136 epochs", "longest_teacher_pasted", "teacher"),
    ("stage one for 34 epochs, every positive image pasted", "all_pasted_teacher", "teacher"),
    ("stage one for 34 epochs, pasted, exponent 8", "pasted_exponent_8", "teacher"),
    ("U-Net on masks", "unet", "model"),
    ("the same network on masks", "lite0_supervised", "model"),
)
METRICS = ("f1", "f1_pos", "iou_pos", "dice", "precision", "recall", "precision_pos")
STUDENTS = (
    ("Dice", "dice", "dice"),
    ("gm_bce, no switch", "gm_bce_no_switch", "gm_bce"),
    ("gm_bce", "gm_bce", "gm_bce"),
)
DIFFERENCES = (
    *(
        (f"student ({name}) - {what}", (folder, "student"), reference)
        for name, folder, loss in STUDENTS
        for what, reference in (
            ("its stage one", (folder, "stage_one")),
            ("stage one for all epochs", (f"teacher_{loss}", "teacher")),
            ("class activation map", ("cam", "model")),
            ("U-Net on masks", ("unet", "model")),
        )
    ),
    *(
        (f"{name} - student of no switch", (folder, "student"), ("gm_bce_no_switch", "student"))
        for name, folder in (
            ("layer by layer", "layer"),
            ("output alone", "output"),
            ("no pixel cross-entropy", "no_wce"),
            ("periodic switches", "periodic"),
            ("switches where better", "gm_bce"),
            ("OEEM-style", "oeem"),
            ("OAA-style", "oaa"),
        )
    ),
    *(
        (f"{name}, student - stage one for all epochs", (f"{name}_student", "student"), (f"{name}_teacher", "teacher"))
        for name in ("vgg", "resnet", "sa", "swin")
    ),
    ("vgg, student of 34 epochs - stage one for 68", ("vgg_long_student", "student"), ("vgg_long_teacher", "teacher")),
    ("vgg, student of 34 epochs - its stage one", ("vgg_long_student", "student"), ("vgg_long_student", "stage_one")),
    *(
        (f"pasted student of 34 epochs - {what}", ("long_student_pasted", "student"), reference)
        for what, reference in (
            ("pasted stage one for 68", ("long_teacher_pasted", "teacher")),
            ("its stage one", ("long_student_pasted", "stage_one")),
            ("stage one for 68, not pasted", ("long_teacher", "teacher")),
            ("student, not pasted", ("long_student", "student")),
            ("class activation map", ("cam", "model")),
            ("U-Net on masks", ("unet", "model")),
        )
    ),
    *(
        (f"{name}, student - its stage one", (folder, "student"), (folder, "stage_one"))
        for name, folder in (
            ("vgg, weights of maps .2 .2 .6", "vgg_deep"),
            ("resnet, weights of maps .2 .2 .6", "resnet_deep"),
            ("no pixel cross-entropy", "long_no_wce"),
            ("output alone", "long_student_output"),
            ("pasted, no pixel cross-entropy", "pasted_no_wce"),
            ("pasted, output alone", "pasted_output"),
            ("pasted, roles switched", "pasted_switched"),
            ("pasted, roles switched every 34", "pasted_periodic"),
            ("swin", "swin_long_student"),
            ("sa", "sa_short"),
            ("Dice", "dice_long_student"),
        )
    ),
    *(
        (f"{name} - pasted stage one for {epochs}", (folder, "student"), (stage_one, "teacher"))
        for epochs, stage_one in ((68, "long_teacher_pasted"), (136, "longest_teacher_pasted"))
        for name, folder in (
            ("pasted, roles switched every 34", "pasted_periodic"),
            ("pasted, roles switched where better", "pasted_switched"),
            ("pasted, 102 epochs, no switch", "pasted_never"),
        )
    ),
    (
        "pasted, roles switched every 34 - no switch, as long",
        ("pasted_periodic", "student"),
        ("pasted_never", "student"),
    ),
    ("pasted, roles switched every 34 - OEEM-style", ("pasted_periodic", "student"), ("oeem", "student")),
    ("pasted, roles switched every 34 - OAA-style", ("pasted_periodic", "student"), ("oaa", "student")),
    ("U-Net on masks - the same network on masks", ("unet", "model"), ("lite0_supervised", "model")),
    ("vgg, student, weights .2 .2 .6 - as set", ("vgg_deep", "student"), ("vgg_long_student", "student")),
    ("pasted stage one for 68 - stage one for 68", ("long_teacher_pasted", "teacher"), ("long_teacher", "teacher")),
    ("student of 34 epochs - stage one for 68", ("long_student", "student"), ("long_teacher", "teacher")),
    ("student of 34 epochs - its stage one", ("long_student", "student"), ("long_student", "stage_one")),
    ("student of 34 epochs - class activation map", ("long_student", "student"), ("cam", "model")),
    ("student of 34 epochs - U-Net on masks", ("long_student", "student"), ("unet", "model")),
)
RESAMPLES = 10_000


def finished(out: Path, folder: str) -> dict[int, Run]:
    """The finished runs of a line by seed."""
    runs = [Run(path) for path in sorted((out / folder).glob("[0-9]*"))]
    return {run.record["seed"]: run for run in runs if run.finished}


def line(name: str, runs: dict[int, Run], role: str) -> dict[str, Any]:
    """Test values of one role over the seeds."""
    records = [run.record for run in runs.values()]
    return {
        "line": name,
        "seeds": list(runs),
        "overrides": [
            [text for text in record["overrides"] if not text.startswith(("hydra.", "paths."))] for record in records
        ],
        "git_commits": sorted({record["git_commit"] for record in records}),
        "data_fingerprints": sorted({record["data_fingerprint"] for record in records}),
        "versions": records[0]["versions"],
        "test": {name: [run.metrics.get(f"test/{role}/pixel_{name}") for run in runs.values()] for name in METRICS},
        "image_auroc": [run.metrics.get(f"test/{role}/image_auroc") for run in runs.values()],
    }


def positive_dice(run: Run, role: str) -> pd.DataFrame:
    """Case and Dice of each positive test image."""
    table = pd.read_csv(run.directory / "images.csv")
    return table.loc[table.label == 1, ["image_id", "case_id", f"{role}_f1"]].set_index("image_id")


def difference(pairs: list[tuple[Run, str, Run, str]]) -> dict[str, float]:
    """Mean difference of Dice over seeds and positive images, with the 95 % interval over slides drawn again."""
    parts = []
    for run, role, reference, other in pairs:
        one, two = positive_dice(run, role), positive_dice(reference, other)
        values = one[f"{role}_f1"] - two.loc[one.index, f"{other}_f1"]
        parts.append(pd.DataFrame({"case": one.case_id, "value": values}))
    by_case = pd.concat(parts).groupby("case").value.agg(["sum", "count"]).to_numpy()
    drawn = np.random.default_rng(0).integers(0, len(by_case), (RESAMPLES, len(by_case)))
    means = by_case[drawn, 0].sum(1) / by_case[drawn, 1].sum(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return {"mean": float(by_case[:, 0].sum() / by_case[:, 1].sum()), "low": float(low), "high": float(high)}


def main(out: Path, target: Path) -> None:
    """Write the results and print the tables."""
    runs = {folder: finished(out, folder) for _, folder, _ in LINES}
    any_runs = next(found for found in runs.values() if found)
    lines = [line(name.replace("_", " "), dict([next(iter(any_runs.items()))]), name) for name in WHOLE]
    lines += [line(name, runs[folder], role) for name, folder, role in LINES if runs[folder]]
    differences: dict[str, Any] = {}
    for name, (folder, role), (reference, other) in DIFFERENCES:
        seeds = sorted(runs[folder].keys() & runs[reference].keys())
        if seeds:
            pairs = [(runs[folder][seed], role, runs[reference][seed], other) for seed in seeds]
            differences[name] = {"seeds": seeds, **difference(pairs)}
    found = {"lines": lines, "differences_of_positive_dice": differences}
    target.write_text(json.dumps(found, indent=1) + "\n")
    print("| line | seeds | " + " | ".join(METRICS) + " |\n|---|---|" + "---|" * len(METRICS))
    for entry in lines:
        print(
            f"| {entry['line']} | {len(entry['seeds'])} | " + " | ".join(cell(entry["test"][m]) for m in METRICS) + " |"
        )
    for name, values in differences.items():
        print(f"{name}: {values['mean']:+.3f} [{values['low']:+.3f}, {values['high']:+.3f}], seeds {values['seeds']}")


def cell(values: list[float | None]) -> str:
    """`.650 (.640 .660)`; a dash where a value is undefined."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return "-"
    return f"{statistics.fmean(known):.3f} ({' '.join(f'{value:.3f}' for value in known)})"


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if sys.argv[2:] else Path(__file__).with_name("results.json"))
