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

from experiments.collect import spread
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


def score(run: Path, cache_dir: Path) -> dict[str, Any]:
    """Instance AUROC of each role of one run, by kind of tumour, and how many tiles there are of each kind."""
    config = yaml.safe_load((run / ".hydra" / "config.yaml").read_text())
    data, seed = config["data"], config["data"]["seed"]
    settings = SyntheticSettings(**{name: value for name, value in data["synthetic"].items() if name != "_target_"})
    truth = build_synthetic_slides(cache_dir, settings, seed).parent / "truth"
    instances = pd.read_parquet(run / "instances.parquet")
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
    groups: dict[str, list[Path]] = {}
    for run in sorted(arguments.runs):
        config = yaml.safe_load((run / ".hydra" / "config.yaml").read_text())
        record = json.loads((run / "run.json").read_text())
        name = record["experiment"]
        if "hpm" in config["method"]:
            name += f", hpm {config['hpm']['mode']}"
        groups.setdefault(name, []).append(run)
    results = {name: summarise(runs, arguments.cache_dir) for name, runs in groups.items()}
    arguments.out.write_text(json.dumps(results, indent=1) + "\n")
    print("| experiment | role | all tumour | easy | hard |\n|---|---|---|---|---|")
    for name, result in results.items():
        for role in dict.fromkeys(key.split("/")[0] for key in result["instance_auroc"]):
            entries = [result["instance_auroc"][f"{role}/{kind}"] for kind in KINDS]
            cells = [f"{entry['mean']:.3f} ({', '.join(f'{v:.3f}' for v in entry['values'])})" for entry in entries]
            print(f"| {name} | {role} | {' | '.join(cells)} |")


def summarise(runs: list[Path], cache_dir: Path) -> dict[str, Any]:
    """The runs of one experiment: areas with mean, sd and all values, test metrics, and what they ran on."""
    scores = [score(run, cache_dir) for run in runs]
    records = [json.loads((run / "run.json").read_text()) for run in runs]
    metrics = [json.loads((run / "metrics.json").read_text()) for run in runs]
    return {
        "overrides": [[text for text in record["overrides"] if not text.startswith("hydra.")] for record in records],
        "seeds": [record["seed"] for record in records],
        "data_fingerprints": sorted({record["data_fingerprint"] for record in records}),
        "versions": records[0]["versions"],
        "test_tiles": scores[0]["tiles"],
        "instance_auroc": {key: spread([one["auroc"][key] for one in scores]) for key in scores[0]["auroc"]},
        "test": {
            name.removeprefix("test/"): spread([one[name] for one in metrics])
            for name in metrics[0]
            if name.startswith("test/")
        },
    }


if __name__ == "__main__":
    main()
