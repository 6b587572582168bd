"""The report: which runs repeat a point, what validation chooses, intervals, tests, a page that stands alone."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from kd_mil.core.errors import UserError
from kd_mil.report import with_directories
from kd_mil.reporting.comparison import baseline_point, compare, entries_of, holm
from kd_mil.reporting.resampling import METRICS, PredictedRows
from kd_mil.reporting.runs import chosen_points, common_settings, find_runs, points_of
from tests.support.command import kd_mil


def make_run(root, experiment, overrides, seed, quality, val=0.5, status="finished", role="student"):
    """A finished run's files: 40 test bags of 5 instances; `quality` shifts the scores of positive ones."""
    text = ["trainer=cpu", *overrides, f"seed={seed}"]
    directory = root / experiment / ",".join(text)
    directory.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    labels = np.arange(40) % 2
    probs = 1 / (1 + np.exp(-(rng.normal(size=40) + quality * labels)))
    pd.DataFrame({"bag_id": [f"b{i}" for i in range(40)], "label": labels, f"{role}_prob": probs}).to_csv(
        directory / "bags.csv", index=False
    )
    positive = np.repeat(labels, 5) * (np.arange(200) % 5 == 0)
    scores = rng.normal(size=200).round(1) + quality * positive
    instances = {
        "bag_id": np.repeat([f"b{i}" for i in range(40)], 5),
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
        "data_fingerprint": "same",
        "monitor": f"val/{role}/bag_loss",
        "monitor_mode": "min",
        "wall_seconds": 60.0,
        "git_commit": "abc",
        "device": "cpu",
        "instance_source": {"kind": "tiles", "tumour_threshold": 0.25},
    }
    (directory / "run.json").write_text(json.dumps(record))
    return directory


@pytest.fixture
def runs(tmp_path):
    """Three thresholds and a baseline, two seeds each; one run of the third threshold did not finish."""
    for threshold, quality, val in ((0.5, 1.0, 0.6), (0.9, 1.5, 0.3), (0.7, 2.0, 0.4)):
        for seed in (0, 1):
            status = "running" if (threshold, seed) == (0.7, 1) else "finished"
            make_run(tmp_path, "weno", [f"hpm.threshold={threshold}"], seed, quality, val + seed / 100, status)
    for seed in (0, 1):
        make_run(tmp_path, "mil", [], seed, 0.2, role="model")
    return tmp_path


def test_runs_that_differ_in_seed_alone_are_one_point(runs):
    found = find_runs([runs, runs / "weno"])
    assert len(found) == 8
    points = points_of([run for run in found if run.finished])
    names = [point.name for point in points]
    assert names == ["mil", "weno hpm.threshold=0.5", "weno hpm.threshold=0.7", "weno hpm.threshold=0.9"]
    assert [len(point.runs) for point in points] == [2, 2, 1, 2]
    assert common_settings(found) == {"trainer": "cpu"}


def test_validation_chooses_not_the_test(runs):
    """0.7 is best on the test, 0.9 on validation."""
    points = points_of([run for run in find_runs([runs]) if run.finished])
    assert chosen_points(points) == {"mil": "mil", "weno": "weno hpm.threshold=0.9"}


def test_points_are_compared_over_the_seeds_that_all_have(tmp_path):
    """Seed 1 is hard; the point that lacks it must not win by that."""
    for threshold, seed, val in ((0.5, 0, 0.2), (0.5, 1, 0.9), (0.7, 0, 0.3)):
        make_run(tmp_path, "weno", [f"hpm.threshold={threshold}"], seed, 1.0, val)
    assert chosen_points(points_of(find_runs([tmp_path]))) == {"weno": "weno hpm.threshold=0.5"}


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


def test_points_are_paired_with_the_baseline_by_seed(runs):
    points = points_of([run for run in find_runs([runs]) if run.finished])
    entries = entries_of(points, ["bag_auroc", "bag_ap"], resamples=200, seed=0)
    assert {one.metric for one in entries} == {"bag_auroc"}, "a metric that is nowhere defined has no column"
    compare(entries, points, baseline_point(points, "mil"))
    by_point = {one.point: one for one in entries}
    assert by_point["mil"].versus is None
    one, other = by_point["weno hpm.threshold=0.5"], by_point["mil"]
    assert one.versus.pairs == 2
    assert one.versus.p == pytest.approx(stats.ttest_rel(one.values, other.values).pvalue)
    assert one.versus.difference == pytest.approx(np.mean(one.values) - np.mean(other.values))
    assert one.versus.low < one.versus.difference < one.versus.high
    single = by_point["weno hpm.threshold=0.7"].versus
    assert (single.pairs, single.p) == (1, None), "one pair is no test"


def test_equal_differences_are_no_certainty(runs):
    """Two pairs whose differences agree to rounding: a t test would call that p < 1e-6."""
    points = points_of([run for run in find_runs([runs]) if run.finished])
    for point in points:
        for index, run in enumerate(point.runs):
            better = 0.1 if point.experiment == "weno" else 0.0
            key = f"test/{run.roles[0]}/bag_auroc"
            run.metrics[key] = 0.7 + better + index * (0.05 + better * 1e-8)
    entries = entries_of(points, ["bag_auroc"], resamples=10, seed=0)
    compare(entries, points, baseline_point(points, "mil"))
    assert [one.versus.p for one in entries if one.versus] == [None, None, None]


def test_a_baseline_must_be_one_point(runs):
    points = points_of([run for run in find_runs([runs]) if run.finished])
    for name, message in (("weno", "choose one of 'weno hpm.threshold=0.5'"), ("nothing", "no such point")):
        with pytest.raises(UserError, match=message):
            baseline_point(points, name)


def test_holm_by_hand():
    """Sorted .01 .02 .04: times 3, 2, 1, and never decreasing."""
    assert holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])


def test_folders_stand_by_themselves_on_the_command_line():
    assert with_directories(["runs/a", "baseline=mil"]) == ["baseline='mil'", "directories=['runs/a']"]
    assert with_directories(["runs/seed=1,it's"]) == [r"directories=['runs/seed=1,it\'s']"]
    assert with_directories(["baseline=weno hpm.threshold=0.5"]) == ["baseline='weno hpm.threshold=0.5'"]
    assert with_directories(["out='x'", "seed=3"]) == ["out='x'", "seed=3"]


@pytest.mark.slow
def test_the_command_writes_a_page_that_needs_nothing_beside_it(runs):
    result = kd_mil("report", str(runs), "baseline=mil", "resamples=50", cwd=runs)
    out = runs / "report"
    page = (out / "report.html").read_text()
    assert "from</td><td><code>25 % tumour area" in page
    assert "Not finished: 1" in page
    assert not re.search(r"(src|href)=['\"](https?:)?//", page)
    links = re.findall(r"href='([^']*)'", page)
    assert links
    assert all((out / link).exists() for link in links)
    assert page.count("data:image/png;base64,") == 2
    assert page.count("<tr class='chosen'>") == 2
    content = json.loads((out / "report.json").read_text())
    assert content["chosen_on_validation"]["weno"] == "weno hpm.threshold=0.9"
    table = pd.read_csv(out / "report.csv")
    assert len(table) == 4
    assert "**weno hpm.threshold=0.9**" in (out / "report.md").read_text()
    assert len(list((out / "tensorboard").iterdir())) == 7
    assert "hpm.threshold=0.9" in result.stdout
    again = kd_mil("report", str(runs), cwd=runs)
    assert again.returncode == 0, "a report does not take itself for a run"


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "message"), [(["nowhere"], "no such folder"), ([], "no folder given")])
def test_a_mistake_is_one_line(arguments, message, tmp_path):
    result = kd_mil("report", *arguments, cwd=tmp_path, check=False)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
