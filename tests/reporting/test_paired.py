"""Differences of networks on images against a plain loop over cases."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import recall_score

from kd_mil.reporting import paired

CASES = np.repeat([f"case {index}" for index in range(12)], 3)


def network(root, name, seed, labels):
    """A run of one network on 36 images of 12 cases."""
    rng = np.random.default_rng((seed, len(name)))
    tilt = np.eye(2)[labels] * rng.uniform(0, 0.8 if name == "student" else 1.6, 36)[:, None]
    probs = rng.dirichlet(np.ones(2), 36) + tilt
    probs /= probs.sum(1, keepdims=True)
    directory = root / f"{name} {seed}"
    directory.mkdir()
    table = {"image_id": range(36), "case_id": CASES, "label": np.take(["a", "b"], labels)}
    table |= {f"{name}_prob_a": probs[:, 0], f"{name}_prob_b": probs[:, 1]}
    pd.DataFrame(table).to_csv(directory / "images.csv", index=False)
    return paired.Tested(directory, name, seed), probs.argmax(1)


@pytest.mark.parametrize("metric", ["accuracy", "recall"])
def test_whole_cases_are_drawn_for_both_networks_and_all_seeds_alike(tmp_path, metric):
    labels = np.random.default_rng(0).integers(0, 2, 36)
    ours, theirs = ([network(tmp_path, name, seed, labels) for seed in (0, 1)] for name in ("student", "teacher"))
    runs = [[run for run, _ in side] for side in (ours, theirs)]
    low, high = paired.PairedCases([run.directory for side in runs for run in side], 4000).difference(*runs, metric)

    def score(truth, decided):
        return recall_score(truth, decided, average="macro") if metric == "recall" else (truth == decided).mean()

    rng, looped = np.random.default_rng(1), []
    for _ in range(1500):
        rows = np.concatenate([np.arange(3 * case, 3 * case + 3) for case in rng.integers(0, 12, 12)])
        pairs = [(one[rows], other[rows]) for (_, one), (_, other) in zip(ours, theirs, strict=True)]
        looped.append(np.mean([score(labels[rows], one) - score(labels[rows], other) for one, other in pairs]))
    assert (low, high) == pytest.approx(tuple(np.percentile(looped, [2.5, 97.5])), abs=0.03)
    assert high - low > 0.1
    alone = paired.PairedCases([run.directory for side in runs for run in side], 50)
    assert alone.difference(runs[0][:1], runs[1][1:], metric) == (None, None), "no seed in common"
