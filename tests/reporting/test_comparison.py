"""Differences over pairs of the same seed and test bags, against scipy and by hand."""

import json

import numpy as np
import pytest
from scipy import stats

from kd_mil.core.errors import UserError
from kd_mil.reporting.comparison import baselines_of, compare, entries_of, holm
from kd_mil.reporting.resampling import CaseDraws
from kd_mil.reporting.runs import find_runs, points_of
from kd_mil.reporting.tables import difference_text, long_table
from tests.support.runs import group, make_run, make_sweep


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


def test_costs_differ_without_a_p_value(tmp_path):
    """They are counted on bags of some size or other, which is no chance."""
    for experiment, gflop in (("weno", 2.0), ("mil", 1.0)):
        for seed in range(3):
            directory = make_run(tmp_path, experiment, [], seed, 1.0)
            metrics = json.loads((directory / "metrics.json").read_text()) | {"cost/gflop": gflop * (1 + seed / 10)}
            (directory / "metrics.json").write_text(json.dumps(metrics))
    points = points_of(find_runs([tmp_path]))
    entries = entries_of(points, ["cost/gflop"], 10, 0)
    compare(entries, points, baselines_of(points, "mil"))
    [versus] = [entry.versus for entry in entries if entry.versus is not None]
    assert (versus.pairs, versus.difference) == (3, pytest.approx(1.1))
    assert versus.p is None


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
    distilled = by_point["weno aggregator=dsmil hpm.start_epoch=5"]
    assert len(alone.values) == 3
    assert distilled.versus.pairs == 2, "a seed without its partner does not count"
    assert distilled.versus.values == pytest.approx([distilled.values[i] - alone.values[i] for i in (0, 1)])
    assert alone.versus is None


def test_the_interval_of_a_difference_is_over_resamples_of_the_same_bags(plug_and_play):
    """By hand: both runs of a pair see the same draws, so that what is common to them cancels out."""
    entries = entries_of(plug_and_play, ["bag_auroc"], resamples=300, seed=7)
    compare(entries, plug_and_play, baselines_of(plug_and_play, "mil"))
    versus = next(entry.versus for entry in entries if entry.versus)
    alone, distilled = (
        next(point for point in plug_and_play if point.name.startswith(f"{name} aggregator=abmil")).runs[:2]
        for name in ("mil", "weno")
    )
    draws = CaseDraws({run.directory: run.held_out for run in (*distilled, *alone)}, 300, 7)
    drawn = [
        draws.resample(ours.directory, "student", "bag_auroc") - draws.resample(theirs.directory, "model", "bag_auroc")
        for ours, theirs in zip(distilled, alone, strict=True)
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


def folds_by_seeds(root, ids_of_fold, folds=4, seeds=3):
    """Each fold with a difference of its own, each seed with a little of its own."""
    for fold in range(folds):
        for seed in range(seeds):
            where = {"ids": ids_of_fold(fold), "fingerprint": f"fold {fold}"}
            overrides = [f"data.fold={fold}"]
            make_run(root, "mil", overrides, seed, 0.5, role="model", **where)
            make_run(root, "weno", overrides, seed, 0.5 + fold / 5, **where)
    points = points_of(find_runs([root]))
    entries = entries_of(points, ["bag_auroc"], resamples=400, seed=0)
    compare(entries, points, baselines_of(points, "mil"))
    return points, next(entry for entry in entries if entry.versus)


def test_seeds_of_a_fold_are_no_further_test_sets(tmp_path):
    """12 pairs on 4 test sets: the t test is over 4 means, not over 12 numbers of which 3 look at the same."""
    points, entry = folds_by_seeds(tmp_path, lambda fold: [f"{fold}-{i}" for i in range(40)])
    [ours] = [point for point in points if point.experiment == "weno"]
    by_fold = {}
    for run, value in zip(ours.runs, entry.versus.values, strict=True):
        by_fold.setdefault(run.overrides["data.fold"], []).append(value)
    means = [np.mean(values) for values in by_fold.values()]
    assert entry.versus.pairs == 12
    assert (entry.versus.independent, entry.versus.over) == (4, "test sets")
    assert entry.versus.p == pytest.approx(stats.ttest_1samp(means, 0).pvalue)
    assert entry.versus.p > 2 * stats.ttest_1samp(entry.versus.values, 0).pvalue
    assert "of 4 test sets, 12 pairs" in difference_text(entry.versus)
    assert entry.sd == pytest.approx(np.std(entry.values, ddof=1))


def test_test_sets_that_share_cases_give_no_p(tmp_path):
    """Divisions drawn anew: there is no unit that a t test may take for independent."""
    _, entry = folds_by_seeds(tmp_path, lambda fold: [f"b{i}" for i in range(10 * fold, 10 * fold + 40)], seeds=1)
    assert (entry.versus.pairs, entry.versus.p, entry.versus.independent) == (4, None, 0)
    assert entry.versus.low < entry.versus.difference < entry.versus.high


def test_looking_twice_at_the_same_cases_narrows_nothing(tmp_path):
    """Equal results on the same cases, in another order and as another division, and on as many further cases."""
    names = [f"b{i}" for i in range(40)]
    same, apart = tmp_path / "same", tmp_path / "apart"
    for root, second in ((same, names), (apart, [f"other {i}" for i in range(40)])):
        for seed, ids in ((0, names), (1, second)):
            run = make_run(root, "weno", [], seed, 1.0, ids=ids, fingerprint=f"division {seed}")
            (run / "bags.csv").write_text(
                "bag_id,label,student_prob\n" + "".join(f"{ids[i]},{i % 2},{(i * 7 % 40) / 40}\n" for i in range(40))
            )
    widths = []
    for root in (same, apart):
        [entry] = entries_of(points_of(find_runs([root])), ["bag_auroc"], resamples=2000, seed=0)
        widths.append(entry.high - entry.low)
    assert widths[1] == pytest.approx(widths[0] / np.sqrt(2), rel=0.1)


def test_intervals_are_over_cases(tmp_path):
    for seed in (0, 1):
        group(make_run(tmp_path, "weno", [], seed, 1.0), lambda bag_id: f"case {int(bag_id[1:]) // 8}")
    points = points_of(find_runs([tmp_path]))
    [entry] = entries_of(points, ["bag_auroc"], resamples=500, seed=3)
    draws = CaseDraws({run.directory: run.held_out for run in points[0].runs}, 500, 3)
    drawn = np.mean([draws.resample(run.directory, "student", "bag_auroc") for run in points[0].runs], 0)
    assert (entry.low, entry.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])))


def test_a_run_without_the_score_has_no_part_in_the_interval_of_the_others(tmp_path):
    for seed in (0, 1):
        make_run(tmp_path, "weno", [], seed, 1.0)
    points = points_of(find_runs([tmp_path]))
    points[0].runs[1].metrics["test/student/bag_auroc"] = None
    [entry] = entries_of(points, ["bag_auroc"], resamples=200, seed=0)
    drawn = CaseDraws({run.directory: run.held_out for run in points[0].runs}, 200, 0)
    alone = drawn.resample(points[0].runs[0].directory, "student", "bag_auroc")
    assert (entry.mean, entry.sd) == (entry.values[0], None)
    assert (entry.low, entry.high) == pytest.approx(tuple(np.quantile(alone, [0.025, 0.975])))


@pytest.mark.parametrize("seed", range(5))
def test_holm_is_the_closed_test_of_bonferroni(seed):
    """By definition: of each hypothesis the largest Bonferroni p value of all sets of hypotheses that hold it."""
    p = np.random.default_rng(seed).uniform(0, 0.2, 5)
    sets = [[i for i in range(5) if number >> i & 1] for number in range(1, 32)]
    expected = [max(min(1, len(some) * min(p[some])) for some in sets if i in some) for i in range(5)]
    assert holm(list(p)) == pytest.approx(expected)
