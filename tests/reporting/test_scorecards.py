"""The scorecard of a run again from its instances, and its interval by whole bags."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from kd_mil.evaluation.scorecard import NORMALISATIONS, scorecard
from kd_mil.evaluation.tables import PredictionTables
from kd_mil.reporting.predictions import held_out
from kd_mil.reporting.runs import find_runs, points_of
from kd_mil.reporting.scorecards import NORMALISED, RANKED, scorecard_entries, word_scores
from tests.support.runs import make_run


def taught_run(root, seed, attention="attention"):
    """A run of a teacher and a student with the scorecard that its instances give."""
    directory = make_run(root, "weno", [], seed, 1.0)
    instances, bags = pd.read_parquet(directory / "instances.parquet"), pd.read_csv(directory / "bags.csv")
    noise = np.random.default_rng(seed).random(200)
    instances[attention] = (noise + 0.4 * (instances.label > 0)) * np.repeat(np.linspace(0.5, 2, 40), 5)
    instances.to_parquet(directory / "instances.parquet", index=False)
    columns = {"bag": torch.arange(40).repeat_interleave(5), "label": torch.tensor(instances.label.to_numpy())}
    columns |= {"student/probs": torch.tensor(instances.student_prob.to_numpy())}
    columns |= {f"teacher/{name}": torch.tensor(instances[attention].to_numpy()) for name in ("attention", "scores")}
    tables = PredictionTables({"bag": torch.arange(40), "label": torch.tensor(bags.label.to_numpy())}, columns)
    rows = scorecard(tables, "teacher", "student")
    pd.DataFrame(rows).to_csv(directory / "scorecard.csv", index=False)
    return directory


@pytest.mark.parametrize("attention", ["attention", "teacher_score"])
def test_every_number_of_the_scorecard_again_from_the_instances(tmp_path, attention):
    """Means over two seeds; a run without a teacher has no scorecard and takes nothing away."""
    cards = pd.concat(pd.read_csv(taught_run(tmp_path, seed, attention) / "scorecard.csv") for seed in (0, 1))
    make_run(tmp_path, "mil", [], 0, 1.0)
    entries = scorecard_entries(points_of(find_runs([tmp_path])), resamples=50, seed=0)
    found = {(entry.role, entry.metric): entry for entry in entries}
    means = cards.groupby(["word", "normalisation"]).mean()
    assert len(found) == len(means) * len(RANKED) == 6 * 3
    for (word, how), row in means.iterrows():
        for metric in RANKED:
            entry = found[f"{word}, {NORMALISED[how]}", metric]
            assert entry.mean == pytest.approx(row[metric])
            assert len(entry.values) == 2
            assert entry.low < entry.mean < entry.high
    assert set(NORMALISED) == set(NORMALISATIONS)


def test_intervals_follow_the_drawn_bags(tmp_path):
    """Each instance of a bag as often as the bag; its normalisation stays that of the test set."""
    directory = taught_run(tmp_path, 0)
    instances = pd.read_parquet(directory / "instances.parquet")
    by_bag = instances.groupby("bag_id", sort=False).attention
    low, high = by_bag.transform("min"), by_bag.transform("max")
    instances["word"] = ((instances.attention - low) / (high - low) + instances.student_prob) / 2
    counts = np.random.default_rng(0).multinomial(40, np.full(40, 1 / 40), 3)
    found = {(name, metric): rest for name, metric, *rest in word_scores(directory, held_out(directory))}
    owners, score = found["mean, range of its bag", "auroc"]
    for weights, value in zip(counts, score(counts[:, owners].astype(float)), strict=True):
        rows = instances.iloc[np.repeat(np.arange(200), np.repeat(weights, 5))].query("label >= 0")
        assert value == pytest.approx(roc_auc_score(rows.label, rows.word))
