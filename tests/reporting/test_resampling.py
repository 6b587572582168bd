"""Resampled scores against scikit-learn, and intervals against a plain loop over cases."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    brier_score_loss,
    f1_score,
    log_loss,
    roc_auc_score,
)

from kd_mil.evaluation.classification import IMAGE_METRICS, image_scores
from kd_mil.evaluation.ranking import ranking_scores
from kd_mil.evaluation.scorecard import lesion_scores
from kd_mil.evaluation.statistics.calibration import brier_score
from kd_mil.evaluation.statistics.weighted_scores import (
    METRICS,
    ClassRows,
    PredictedRows,
    average_precision,
    brier,
    class_rows,
    f1,
    loss,
    mean,
)
from kd_mil.evaluation.tables import PredictionTables
from kd_mil.reporting.predictions import held_out, predicted_rows
from kd_mil.reporting.resampling import CaseDraws, overlapping, weighted_metric
from tests.support.runs import group, make_run

SCORES = {"auroc": roc_auc_score, "ap": average_precision_score, "accuracy": accuracy_score, "f1": f1_score}


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path, "weno", [], 0, 1.0)


def draws_of(*directories, resamples=2000, seed=0):
    return CaseDraws({directory: held_out(directory) for directory in directories}, resamples, seed)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("level", ["bag", "instance"])
def test_weights_are_rows_repeated_as_often(run, level, metric):
    """The weighted scores against scikit-learn on rows repeated as often as their bag was drawn."""
    rows = predicted_rows(run, level, "student", held_out(run))
    counts = np.random.default_rng(0).multinomial(40, np.full(40, 1 / 40), 3)
    values = METRICS[metric](rows)(counts[:, rows.owners].astype(float))
    [positive] = rows.classes
    for weights, value in zip(counts, values, strict=True):
        drawn = np.repeat(np.arange(len(rows.owners)), weights[rows.owners])
        answer = positive.ranking if metric in ("auroc", "ap") else positive.decided
        assert value == pytest.approx(SCORES[metric](positive.labels[drawn], answer[drawn]))


@pytest.mark.parametrize("metric", METRICS)
def test_several_classes_are_a_mean_over_one_against_the_rest(run, metric):
    """As the metrics of a run are: macro averages, and the accuracy of the most probable class."""
    rng = np.random.default_rng(0)
    labels, probs = np.arange(40) % 3, rng.dirichlet(np.ones(3), 40)
    table = pd.DataFrame({"bag_id": [f"b{i}" for i in range(40)], "label": labels})
    for index, name in enumerate(("none", "NA", "1.10")):
        table[f"student_prob_{name}"] = probs[:, index]
    table.to_csv(run / "bags.csv", index=False)
    rows = predicted_rows(run, "bag", "student", held_out(run))
    [value] = METRICS[metric](rows)(np.ones((1, 40)))
    expected = {
        "auroc": lambda: roc_auc_score(labels, probs, multi_class="ovr"),
        "ap": lambda: average_precision_score(np.eye(3)[labels], probs, average="macro"),
        "accuracy": lambda: accuracy_score(labels, probs.argmax(1)),
        "f1": lambda: f1_score(labels, probs.argmax(1), average="macro"),
    }[metric]()
    assert value == pytest.approx(expected)


def chosen_thresholds(run, **thresholds):
    """Let validation have chosen where the student decides."""
    metrics = json.loads((run / "metrics.json").read_text())
    metrics |= {f"test/student/{level}_threshold": value for level, value in thresholds.items()}
    (run / "metrics.json").write_text(json.dumps(metrics))


FURTHER = {
    "accuracy_tuned": lambda labels, probs: accuracy_score(labels, probs >= 0.8),
    "f1_tuned": lambda labels, probs: f1_score(labels, probs >= 0.8),
    "brier": brier_score_loss,
    "loss": log_loss,
}


@pytest.mark.parametrize("metric", FURTHER)
def test_scores_at_the_chosen_threshold_and_of_probabilities(run, metric):
    """Against scikit-learn on bags repeated as often as they were drawn; without a threshold there is no interval."""
    if metric.endswith("_tuned"):
        assert weighted_metric(run, "student", f"bag_{metric}", held_out(run)) is None
    chosen_thresholds(run, bag=0.8)
    owners, score = weighted_metric(run, "student", f"bag_{metric}", held_out(run))
    bags, counts = pd.read_csv(run / "bags.csv"), np.random.default_rng(0).multinomial(40, np.full(40, 1 / 40), 3)
    for weights, value in zip(counts, score(counts[:, owners].astype(float)), strict=True):
        drawn = bags.iloc[np.repeat(np.arange(40), weights)]
        assert value == pytest.approx(FURTHER[metric](drawn.label, drawn.student_prob))


@pytest.mark.parametrize("metric", IMAGE_METRICS)
def test_every_score_of_images_has_resamples(tmp_path, metric):
    """Against `image_scores` of images repeated as often as they were drawn."""
    rng = np.random.default_rng(0)
    labels, probs = rng.integers(0, 3, 40), rng.dirichlet(np.ones(3), 40).round(6)
    table = {"image_id": range(40), "label": np.take(list("abc"), labels)}
    table |= {f"model_prob_{name}": probs[:, index] for index, name in enumerate("abc")}
    pd.DataFrame(table).to_csv(tmp_path / "images.csv", index=False)
    owners, score = weighted_metric(tmp_path, "model", f"image_{metric}", held_out(tmp_path))
    counts = rng.multinomial(40, np.full(40, 1 / 40), 3)
    for weights, value in zip(counts, score(counts[:, owners].astype(float)), strict=True):
        rows = np.repeat(np.arange(40), weights)
        expected = image_scores(torch.tensor(probs[rows]), torch.tensor(labels[rows]))
        assert value == pytest.approx(expected[f"image_{metric}"], nan_ok=True)


def test_probabilities_of_several_classes():
    rng = np.random.default_rng(0)
    labels, probs = np.arange(40) % 3, rng.dirichlet(np.ones(3), 40)
    rows = class_rows(np.arange(40), labels, probs)
    [value] = brier(rows)(np.ones((1, 40)))
    assert value == pytest.approx(brier_score(probs, labels))
    [value] = loss(rows)(np.ones((1, 40)))
    assert value == pytest.approx(log_loss(labels, probs))


@pytest.mark.parametrize("metric", ["instance_froc", "instance_dice_tuned", "instance_iou_tuned"])
def test_lesions_follow_the_drawn_slides(run, metric):
    """Against `lesion_scores` of slides laid end to end; one tile of each slide has no place."""
    instances = pd.read_parquet(run / "instances.parquet")
    number = np.arange(200) % 5
    instances["x"], instances["y"] = np.where(number == 1, -1, number * 256), np.where(number == 1, -1, 0)
    instances.to_parquet(run / "instances.parquet", index=False)
    chosen_thresholds(run, instance=0.6)
    owners, score = weighted_metric(run, "student", metric, held_out(run))
    counts = np.random.default_rng(0).multinomial(40, np.full(40, 1 / 40), 3)
    for weights, value in zip(counts, score(counts[:, owners].astype(float)), strict=True):
        bags = np.repeat(np.arange(40), weights)
        rows = pd.concat([instances.iloc[5 * bag : 5 * bag + 5] for bag in bags])
        columns = {name: torch.tensor(rows[name].to_numpy()) for name in ("label", "x", "y")}
        columns |= {
            "bag": torch.arange(40).repeat_interleave(5),
            "student/probs": torch.tensor(rows.student_prob.to_numpy()),
        }
        expected = lesion_scores(PredictionTables({}, columns), "student", 0.6)[metric]
        assert value == pytest.approx(expected, nan_ok=True)
        assert value > 0


def test_unknown_instances_are_left_out(run):
    assert len(predicted_rows(run, "instance", "student", held_out(run)).owners) == 200 - len(range(0, 200, 7))


def test_undefined_scores_are_nan_and_not_zero():
    """Without a positive label F1 is undefined though one is decided; without a negative one AP is, as AUROC is."""
    rows = ClassRows(np.array([0.0, 0.0, 1.0]), np.array([0.1, 0.9, 0.8]), np.array([0.0, 1.0, 1.0]))
    weights = np.array([[1.0, 1, 0], [1, 1, 1], [0, 0, 2]])
    assert f1(rows)(weights) == pytest.approx([np.nan, 2 / 3, 1], nan_ok=True)
    assert average_precision(rows)(weights) == pytest.approx([np.nan, 0.5, np.nan], nan_ok=True)
    every = PredictedRows(np.arange(3), [rows], np.ones(3))
    assert METRICS["auroc"](every)(weights) == pytest.approx([np.nan, 0.5, np.nan], nan_ok=True)


def test_a_mean_over_images_leaves_out_the_undefined():
    weights = np.array([[1.0, 1, 1], [0, 1, 3], [0, 1, 0]])
    assert mean(np.array([0.2, np.nan, 0.8]))(weights) == pytest.approx([0.5, 0.8, np.nan], nan_ok=True)


def loop(directory, unit, resamples=2000):
    """AUROC of bags by the definition: whole units drawn with replacement."""
    bags, rng, values = pd.read_csv(directory / "bags.csv"), np.random.default_rng(1), []
    members = list(bags.groupby(unit(bags)).indices.values())
    for _ in range(resamples):
        own = bags.iloc[np.concatenate([members[index] for index in rng.integers(0, len(members), len(members))])]
        if own.label.nunique() == 2:
            values.append(roc_auc_score(own.label, own.student_prob))
    return np.percentile(values, [2.5, 50, 97.5])


def test_the_interval_is_that_of_whole_bags(run):
    drawn = draws_of(run).resample(run, "student", "bag_auroc")
    assert np.percentile(drawn, [2.5, 50, 97.5]) == pytest.approx(loop(run, lambda bags: bags.bag_id), abs=0.02)


def test_the_interval_is_that_of_whole_cases_where_they_group_bags(run):
    """Bags of one case that say the same are one look: the interval is that of 10 cases, not of 40 bags."""
    bags = pd.read_csv(run / "bags.csv")
    for column in ("label", "student_prob"):
        bags[column] = np.repeat(bags[column].to_numpy()[:10], 4)
    bags.to_csv(run / "bags.csv", index=False)
    by_bag = np.nanpercentile(draws_of(run).resample(run, "student", "bag_auroc"), [2.5, 97.5])
    group(run, lambda bag_id: f"case {int(bag_id[1:]) // 4}")
    by_case = np.nanpercentile(draws_of(run).resample(run, "student", "bag_auroc"), [2.5, 50, 97.5])
    assert by_case == pytest.approx(loop(run, lambda bags: np.arange(40) // 4), abs=0.03)
    assert by_case[2] - by_case[0] > 1.5 * (by_bag[1] - by_bag[0])


def test_a_single_case_has_no_resamples(run):
    """Each would be the case itself, and the interval as wide as nothing."""
    group(run, lambda bag_id: "the only one")
    assert draws_of(run).resample(run, "student", "bag_auroc") is None


def test_runs_that_share_cases_draw_them_alike_and_others_apart(tmp_path):
    """A case that two test sets share is drawn as often in both, wherever it stands there."""
    names = [f"b{i}" for i in range(60)]
    first, second, apart = (
        make_run(tmp_path, "weno", [], seed, 1.0, ids=ids)
        for seed, ids in enumerate((names[:40], names[20:][::-1], [f"other{i}" for i in range(40)]))
    )
    draws = draws_of(first, second, apart, resamples=50)
    [one], [two], [three] = (list(draws.counts(directory, 40)) for directory in (first, second, apart))
    np.testing.assert_array_equal(one[:, 20:], two[:, ::-1][:, :20])
    assert (one[:, :20] != two[:, ::-1][:, 20:]).any()
    assert (three.sum(1) == 40).all(), "a test set of its own keeps its size"
    assert one.mean() == pytest.approx(1, abs=0.1)


def test_many_rows_are_drawn_in_parts_that_are_the_whole(run, monkeypatch):
    whole = draws_of(run, resamples=50).resample(run, "student", "instance_auroc")
    monkeypatch.setattr("kd_mil.reporting.resampling.CELLS_AT_ONCE", 1000)
    np.testing.assert_array_equal(draws_of(run, resamples=50).resample(run, "student", "instance_auroc"), whole)


def test_sets_that_overlap_in_a_chain_are_one_group():
    assert overlapping([["a", "b"], ["c"], ["b", "d"], ["d", "e"], ["f", "f"]]) == [0, 1, 0, 0, 2]


@pytest.mark.parametrize(
    "metric",
    [
        "instance_loss",
        "instance_froc",
        "bag_auroc_tuned",
        "instance_class_auroc",
        "pixel_dice",
        "image_auroc",
        "nothing",
    ],
)
def test_what_no_table_gives_has_no_resamples(run, metric):
    assert draws_of(run).resample(run, "student", metric) is None
    assert draws_of(run).resample(run, "nobody", "bag_auroc") is None


@pytest.mark.parametrize("reading", ["", "bag_of_one"])
@pytest.mark.parametrize("metric", ["auroc_within", "ap_within", "auroc_per_bag", "ap_per_bag", "auroc", "ap"])
def test_rankings_of_instances_in_every_reading_follow_the_drawn_bags(run, reading, metric):
    """Against `ranking_scores` of bags laid end to end as often as they were drawn."""
    instances, bags = pd.read_parquet(run / "instances.parquet"), pd.read_csv(run / "bags.csv")
    noise = np.random.default_rng(3).standard_normal(len(instances))
    instances["student_bag_of_one"] = instances.label + noise
    instances.to_parquet(run / "instances.parquet", index=False)
    tested = held_out(run)
    owners, score = weighted_metric(run, "student", f"{reading}/instance_{metric}".lstrip("/"), tested)
    counts = np.random.default_rng(0).multinomial(40, np.full(40, 1 / 40), 3)
    positive, column = dict(zip(bags.bag_id, bags.label > 0, strict=True)), f"student_{reading or 'score'}"
    for weights, value in zip(counts, score(counts[:, owners].astype(float)), strict=True):
        drawn = [bag for bag, times in zip(tested.ids, weights, strict=True) for _ in range(times)]
        tables = [instances[(instances.bag_id == bag) & (instances.label >= 0)] for bag in drawn]
        owner = np.repeat(np.arange(len(drawn)), [len(table) for table in tables])
        rows = pd.concat(tables)
        inside = np.array([positive[bag] for bag in drawn])[owner]
        columns = (rows[column], rows.label > 0, pd.Series(owner), pd.Series(inside))
        expected = ranking_scores(*(torch.tensor(each.to_numpy()) for each in columns))
        assert value == pytest.approx(expected[metric], nan_ok=True)


def test_readings_that_a_run_has_not_have_no_resamples(run):
    for metric in ("nothing/instance_auroc", "nothing/instance_auroc_within", "instance_f1_within"):
        assert draws_of(run).resample(run, "student", metric) is None
