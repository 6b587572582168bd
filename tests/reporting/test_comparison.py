"""Differences over pairs of the same seed and test bags, against scipy and by hand."""

import numpy as np
import pytest
from scipy import stats

from kd_mil.core.errors import UserError
from kd_mil.reporting.comparison import baselines_of, compare, entries_of, holm
from kd_mil.reporting.resampling import PredictedRows
from kd_mil.reporting.runs import find_runs, points_of
from kd_mil.reporting.tables import difference_text, long_table
from tests.support.runs import make_run, make_sweep


@pytest.fixture
def runs(tmp_path):
    make_sweep(tmp_path)
    return tmp_path


def test_points_are_paired_with_the_baseline_by_seed(runs):
    points = points_of([run for run in find_runs([runs]) if run.finished])
    entries = entries_of(points, ["bag_auroc", "bag_ap"], resamples=200, seed=0)
    assert {entry.metric for entry in entries} == {"bag_auroc"}, "a metric that is nowhere defined has no column"
    compare(entries, points, baselines_of(points, "mil"))
    by_point = {entry.point: entry for entry in entries}
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
    compare(entries, points, baselines_of(points, "mil"))
    assert [entry.versus.p for entry in entries if entry.versus] == [None, None, None]


def test_a_baseline_must_be_one_point(runs):
    points = points_of([run for run in find_runs([runs]) if run.finished])
    for name, message in (("weno", "choose one of 'weno hpm.threshold=0.5'"), ("nothing", "no such point")):
        with pytest.raises(UserError, match=message):
            baselines_of(points, name)


def test_holm_by_hand():
    """Sorted .01 .02 .04: times 3, 2, 1, and never decreasing."""
    assert holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])


@pytest.fixture
def plug_and_play(tmp_path):
    """Two aggregators alone and as a teacher; seed 2 of the second alone has no partner."""
    for aggregator, quality in (("abmil", 0.4), ("dsmil", 0.9)):
        for seed in (0, 1, 2):
            make_run(tmp_path, "mil", [f"aggregator={aggregator}"], seed, quality, role="model")
        for seed in (0, 1):
            make_run(tmp_path, "weno", [f"aggregator={aggregator}", "hpm.start_epoch=5"], seed, quality + 0.5)
    return points_of(find_runs([tmp_path]))


def test_each_point_is_compared_with_the_one_of_its_settings(plug_and_play):
    baselines = baselines_of(plug_and_play, "mil")
    assert {name: other.name for name, other in baselines.items()} == {
        "weno aggregator=abmil hpm.start_epoch=5": "mil aggregator=abmil",
        "weno aggregator=dsmil hpm.start_epoch=5": "mil aggregator=dsmil",
    }
    entries = entries_of(plug_and_play, ["bag_auroc"], resamples=20, seed=0)
    compare(entries, plug_and_play, baselines)
    by_point = {entry.point: entry for entry in entries}
    alone = by_point["mil aggregator=dsmil"]
    taught = by_point["weno aggregator=dsmil hpm.start_epoch=5"]
    assert len(alone.values) == 3
    assert taught.versus.pairs == 2, "a seed without its partner does not count"
    assert taught.versus.values == pytest.approx([taught.values[i] - alone.values[i] for i in (0, 1)])
    assert alone.versus is None


def test_the_interval_of_a_difference_is_over_resamples_of_the_same_bags(plug_and_play):
    """By hand: both runs of a pair see the same draws, so that what is common to them cancels out."""
    entries = entries_of(plug_and_play, ["bag_auroc"], resamples=300, seed=7)
    compare(entries, plug_and_play, baselines_of(plug_and_play, "mil"))
    versus = next(entry.versus for entry in entries if entry.versus)
    alone, taught = (
        next(point for point in plug_and_play if point.name.startswith(f"{name} aggregator=abmil")).runs[:2]
        for name in ("mil", "weno")
    )
    drawn = [
        PredictedRows(ours.directory, "bag", "student").resample("auroc", 300, 7)
        - PredictedRows(theirs.directory, "bag", "model").resample("auroc", 300, 7)
        for ours, theirs in zip(taught, alone, strict=True)
    ]
    assert (versus.low, versus.high) == pytest.approx(tuple(np.quantile(np.mean(drawn, 0), [0.025, 0.975])), abs=1e-9)


def test_two_baselines_for_one_point_are_refused(tmp_path):
    for name, overrides in (("mil", ["a=1"]), ("mil", ["b=2"]), ("weno", ["a=1", "b=2"])):
        make_run(tmp_path, name, overrides, 0, 1.0)
    with pytest.raises(UserError, match="'weno a=1 b=2' could be compared with 'mil a=1'; 'mil b=2'"):
        baselines_of(points_of(find_runs([tmp_path])), "mil")


def test_the_difference_in_words_and_in_the_table(plug_and_play):
    entries = entries_of(plug_and_play, ["bag_auroc"], resamples=20, seed=0)
    compare(entries, plug_and_play, baselines_of(plug_and_play, "mil"))
    entry = next(entry for entry in entries if entry.versus)
    entry.versus.difference, entry.versus.low, entry.versus.high, entry.versus.p_holm = 0.052, 0.011, 0.0934, 0.03
    assert difference_text(entry.versus) == "Δ +0.052 [+0.011, +0.093] p=0.03, 2 pairs"
    line = next(row for row in long_table(entries).to_dict("records") if row["point"] == entry.point)
    assert [float(text) for text in line["versus_values"].split()] == entry.versus.values
