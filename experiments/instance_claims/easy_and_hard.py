"""Easy and hard tumour apart: python experiments/instance_claims/easy_and_hard.py OUT/procedural SLIDES.csv [OUT.json]

For each way to score, AUROC within the positive test slides of a run: tiles with dense nests (easy) or with single
cells in stroma (hard) against the tiles without tumour of the same slides. Every run, and their mean.
"""

import json
import sys
from pathlib import Path
from statistics import mean

import pandas as pd
import torch

from kd_mil.evaluation.metrics import binary_scores
from kd_mil.slides.synthetic.build import truth_fractions

TILE = 64
"""Side in level-0 pixels."""
TUMOUR_FROM = 0.25
"""Least area fraction of a positive tile, as `data.tumour_threshold`."""
KINDS = ("easy", "hard")
ALONE = {"attention": "model_attention", "a bag of one": "model_bag_of_one"}
METHODS = {
    "max": "model",
    "naive": "student",
    "weno": "student",
    "weno_bag_of_one": "student",
    "sela_mil": "model",
    "ins": "model",
    "dmkd_style": "student",
    "weno_transport": "student",
    "supervised": "model",
}


def aurocs(run: Path, column: str, truths: Path) -> dict[str, float]:
    """By kind of tumour, of one column of a run's table."""
    table = pd.read_parquet(run / "instances.parquet")
    slides = {name: tiles for name, tiles in table.groupby("bag_id") if tiles.label.eq(1).any()}
    fractions = {
        name: truth_fractions(truths / f"{name}.png", tiles[["x", "y"]].to_numpy(), TILE)
        for name, tiles in slides.items()
    }
    found = {}
    for number, kind in enumerate(KINDS):
        scores, labels = [], []
        for name, tiles in slides.items():
            is_kind = fractions[name][:, number] >= TUMOUR_FROM
            kept = is_kind | (tiles.label == 0).to_numpy()
            scores.append(tiles[column].to_numpy()[kept])
            labels.append(is_kind[kept])
        together = (torch.cat([torch.from_numpy(part) for part in parts]) for parts in (scores, labels))
        score, label = together
        found[kind] = round(binary_scores(score.double(), label.long(), of=f"{run}, {kind}")["auroc"], 4)
    return found


def main() -> None:
    """Print a table, write every value."""
    out, truths = Path(sys.argv[1]), Path(sys.argv[2]).parent / "truth"
    columns = {f"alone, {reading}": ("alone_last", column) for reading, column in ALONE.items()}
    columns |= {method: (method, f"{role}_score") for method, role in METHODS.items()}
    found = {}
    for name, (method, column) in columns.items():
        runs = sorted(path.parent for path in (out / method).glob("*/instances.parquet"))
        found[name] = {run.name: aurocs(run, column, truths) for run in runs}
        means = " | ".join(f"{mean(each[kind] for each in found[name].values()):.3f}" for kind in KINDS)
        print(f"| {name} | {means} |")
    if sys.argv[3:]:
        Path(sys.argv[3]).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
