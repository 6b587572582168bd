"""How well runs on `synthetic_slides` rank easy and hard tumour.

`python -m experiments.synthetic_slides.hard_positives OUT.json RUN_DIR [RUN_DIR ...]`, from the top of the source tree.

A positive tile is hard if more of its tumour is single cells in stroma than dense nests; the generator's truth masks
tell. Each kind is ranked against all tiles without tumour of the test slides.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from sklearn.metrics import roc_auc_score

from experiments.collect import spread, test_scores, without_hydra
from kd_mil.reporting.runs import Run
from kd_mil.slides.synthetic.build import SyntheticSettings, build_synthetic_slides, truth_fractions

KINDS = ("all", "easy", "hard")


def difficulty(instances: pd.DataFrame, truth: Path, tile_size_level0: int) -> np.ndarray:
    """(N,) `easy`, `hard` or `negative` for each row of a run's instances.parquet, by the masks in `truth`."""
    kinds = np.full(len(instances), "negative", dtype=object)
    for bag_id, rows in instances.groupby("bag_id", observed=True).indices.items():
        coords = instances[["x", "y"]].to_numpy()[rows]
        easy, hard = truth_fractions(truth / f"{bag_id}.png", coords, tile_size_level0).T
        positive = instances["label"].to_numpy()[rows] > 0
        kinds[rows[positive]] = np.where(hard > easy, "hard", "easy")[positive]
    return kinds


def configuration(run: Run) -> dict[str, Any]:
    """What a run was started with, in full."""
    return yaml.safe_load((run.directory / ".hydra" / "config.yaml").read_text())


def score(run: Run, cache_dir: Path) -> dict[str, Any]:
    """Instance AUROC of each role of one run, by kind of tumour, and how many tiles there are of each kind."""
    config = configuration(run)
    data, seed = config["data"], config["data"]["seed"]
    settings = SyntheticSettings(**{name: value for name, value in data["synthetic"].items() if name != "_target_"})
    truth = build_synthetic_slides(cache_dir, settings, seed).parent / "truth"
    instances = pd.read_parquet(run.directory / "instances.parquet")
    side = round(config["tiling"]["tile_size"] * config["tiling"]["mpp"] / settings.mpp)
    kinds = difficulty(instances, truth, side)
    areas = {}
    for column in [name for name in instances if name.endswith("_score")]:
        for kind in KINDS:
            chosen = (kinds == "negative") | (kinds == kind) | (kind == "all")
            areas[f"{column.removesuffix('_score')}/{kind}"] = roc_auc_score(
                kinds[chosen] != "negative", instances[column].to_numpy()[chosen]
            )
    return {"tiles": {kind: int((kinds == kind).sum()) for kind in ("negative", "easy", "hard")}, "auroc": areas}


def main() -> None:
    """Parse the command line, group runs by experiment and mining, write the record, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    cache_dir = os.environ.get("KD_MIL_CACHE", ".cache/kd_mil")
    parser.add_argument("--cache_dir", type=Path, default=cache_dir, help="where the runs built their slides")
    arguments = parser.parse_args()
    groups: dict[str, list[Run]] = {}
    for run in map(Run, sorted(arguments.runs)):
        config = configuration(run)
        mining = f", hpm {config['hpm']['mode']}" if "hpm" in config["method"] else ""
        groups.setdefault(run.experiment + mining, []).append(run)
    results = {name: summarise(runs, arguments.cache_dir) for name, runs in groups.items()}
    arguments.out.write_text(json.dumps(results, indent=1) + "\n")
    print("| experiment | role | all tumour | easy | hard |\n|---|---|---|---|---|")
    for name, result in results.items():
        for role in dict.fromkeys(key.split("/")[0] for key in result["instance_auroc"]):
            entries = [result["instance_auroc"][f"{role}/{kind}"] for kind in KINDS]
            cells = [f"{entry['mean']:.3f} ({', '.join(f'{v:.3f}' for v in entry['values'])})" for entry in entries]
            print(f"| {name} | {role} | {' | '.join(cells)} |")


def summarise(runs: list[Run], cache_dir: Path) -> dict[str, Any]:
    """The runs of one experiment: areas with mean, sd and all values, test metrics, and what they ran on."""
    scores = [score(run, cache_dir) for run in runs]
    return {
        "overrides": [without_hydra(run) for run in runs],
        "seeds": [run.record["seed"] for run in runs],
        "data_fingerprints": sorted({run.record["data_fingerprint"] for run in runs}),
        "versions": runs[0].record["versions"],
        "test_tiles": scores[0]["tiles"],
        "instance_auroc": {key: spread([score["auroc"][key] for score in scores]) for key in scores[0]["auroc"]},
        "test": test_scores(runs),
    }


if __name__ == "__main__":
    main()
