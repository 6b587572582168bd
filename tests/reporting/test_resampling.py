"""Resampled scores against scikit-learn, and intervals against a plain loop."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from kd_mil.reporting.resampling import METRICS, PredictedRows
from kd_mil.reporting.runs import find_runs
from tests.support.runs import make_sweep


@pytest.fixture
def runs(tmp_path):
    make_sweep(tmp_path)
    return tmp_path


@pytest.mark.parametrize("metric", METRICS)
def test_weights_of_one_give_the_plain_score_and_counts_that_of_the_repeated_rows(runs, metric):
    """The weighted scores against scikit-learn on rows repeated as often as their bag was drawn."""
    directory = next(run.directory for run in find_runs([runs / "weno"]))
    rows = PredictedRows(directory, "instance", "student")
    score = METRICS[metric](rows)
    counts = np.random.default_rng(0).multinomial(40, np.full(40, 1 / 40), 3)
    for weights, value in zip(counts, score(counts[:, rows.bag].astype(float)), strict=True):
        drawn = np.repeat(np.arange(len(rows.labels)), weights[rows.bag])
        labels, ranking, decided = rows.labels[drawn], rows.ranking[drawn], rows.probs[drawn] >= 0.5
        expected = {
            "auroc": lambda labels=labels, ranking=ranking: roc_auc_score(labels, ranking),
            "ap": lambda labels=labels, ranking=ranking: average_precision_score(labels, ranking),
            "accuracy": lambda labels=labels, decided=decided: (labels == decided).mean(),
            "f1": lambda labels=labels, decided=decided: f1_score(labels, decided),
        }[metric]()
        assert value == pytest.approx(expected)


def test_unknown_instances_are_left_out_and_an_undefined_score_is_nan(runs):
    directory = next(run.directory for run in find_runs([runs / "weno"]))
    rows = PredictedRows(directory, "instance", "student")
    assert len(rows.labels) == 200 - len(range(0, 200, 7))
    rows.labels[:] = 0
    assert np.isnan(METRICS["auroc"](rows)(np.ones((1, len(rows.labels))))).all()


def test_the_interval_is_that_of_whole_bags(runs):
    """Against a plain loop over resamples, within what 2,000 of them leave to chance."""
    directory = next(run.directory for run in find_runs([runs / "weno"]))
    drawn = PredictedRows(directory, "bag", "student").resample("auroc", 2000, seed=0)
    bags, rng, loop = pd.read_csv(directory / "bags.csv"), np.random.default_rng(1), []
    for _ in range(2000):
        own = bags.iloc[rng.integers(0, 40, 40)]
        loop.append(roc_auc_score(own.label, own.student_prob))
    assert np.percentile(drawn, [2.5, 50, 97.5]) == pytest.approx(np.percentile(loop, [2.5, 50, 97.5]), abs=0.02)
