"""Finished runs as they lie in folders, without training."""

import json

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score


def make_run(
    root, experiment, overrides, seed, quality, val=0.5, status="finished", role="student", ids=None, fingerprint="same"
):
    """A finished run's files: 40 test bags of 5 instances; `quality` shifts the scores of positive ones."""
    ids = ids or [f"b{i}" for i in range(40)]
    text = ["trainer=cpu", *overrides, f"seed={seed}"]
    directory = root / experiment / ",".join(part[:99] for part in text)
    directory.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    labels = np.arange(40) % 2
    probs = 1 / (1 + np.exp(-(rng.normal(size=40) + quality * labels)))
    bags = pd.DataFrame({"bag_id": ids, "label": labels, f"{role}_prob": probs})
    bags.to_csv(directory / "bags.csv", index=False)
    positive = np.repeat(labels, 5) * (np.arange(200) % 5 == 0)
    scores = rng.normal(size=200).round(1) + quality * positive
    instances = {
        "bag_id": np.repeat(ids, 5),
        "label": np.where(np.arange(200) % 7 == 0, -1, positive),
        f"{role}_prob": 1 / (1 + np.exp(-scores)),
        f"{role}_score": scores,
    }
    pd.DataFrame(instances).to_parquet(directory / "instances.parquet", index=False)
    metrics = {
        f"val/{role}/bag_loss": val,
        f"val/{role}/bag_auroc": 1 - val / 2,
        f"test/{role}/bag_auroc": roc_auc_score(labels, probs),
        f"test/{role}/bag_ap": None,
    }
    (directory / "metrics.json").write_text(json.dumps(metrics))
    record = {
        "status": status,
        "experiment": experiment,
        "overrides": [f"experiment={experiment}", *text],
        "seed": seed,
        "data_fingerprint": fingerprint,
        "monitor": f"val/{role}/bag_loss",
        "monitor_mode": "min",
        "wall_seconds": 60.0,
        "git_commit": "abc",
        "device": "cpu",
        "instance_source": {"kind": "tiles", "tumour_threshold": 0.25},
    }
    (directory / "run.json").write_text(json.dumps(record))
    return directory


def group(directory, case_of):
    """Let the split file of a run say of which case each test bag is."""
    ids = pd.read_csv(directory / "bags.csv", dtype=str, keep_default_na=False).bag_id
    splits = pd.DataFrame({"bag_id": ids, "case_id": [case_of(bag_id) for bag_id in ids], "split": "test"})
    splits.to_csv(directory / "splits.csv", index=False)


def make_sweep(root):
    """Three thresholds and a baseline, two seeds each; one run of the third threshold did not finish."""
    for threshold, quality, val in ((0.5, 1.0, 0.6), (0.9, 1.5, 0.3), (0.7, 2.0, 0.4)):
        for seed in (0, 1):
            status = "running" if (threshold, seed) == (0.7, 1) else "finished"
            make_run(root, "weno", [f"hpm.threshold={threshold}"], seed, quality, val + seed / 100, status)
    for seed in (0, 1):
        make_run(root, "mil", [], seed, 0.2, role="model")
