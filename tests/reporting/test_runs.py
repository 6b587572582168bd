"""Which runs repeat a point, and which point validation chooses."""

import shutil

import pytest

from kd_mil.reporting.runs import chosen_points, common_settings, find_runs, number, points_of
from tests.support.runs import make_run, make_sweep


@pytest.fixture
def runs(tmp_path):
    make_sweep(tmp_path)
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


def test_copies_of_a_run_count_once(tmp_path):
    """A copied folder, and the same run made again elsewhere: neither is a further seed."""
    for seed in (0, 1):
        run = make_run(tmp_path / "first", "weno", ["a=1"], seed, 1.0)
        shutil.copytree(run, tmp_path / "backup" / f"copy {seed}")
    make_run(tmp_path / "again", "weno", ["a=1"], 1, 1.0)
    [point] = points_of(find_runs([tmp_path / "first", tmp_path]))
    assert [run.directory.parent.parent.name for run in point.runs] == ["first", "first"]
    assert len(point.copies) == 3


def test_seeds_and_folds_are_no_copies(tmp_path):
    for seed in (0, 1):
        for fold in (0, 1):
            make_run(tmp_path, "weno", [f"data.fold={fold}"], seed, 1.0, fingerprint=f"fold {fold}")
    [point] = points_of(find_runs([tmp_path]))
    assert (len(point.runs), len(point.copies)) == (4, 0)


def test_folds_of_runs_that_recorded_no_fingerprint_are_told_apart_by_their_settings(tmp_path):
    for fold in (0, 1):
        make_run(tmp_path, "weno", [f"data.fold={fold}"], 0, 1.0, fingerprint=None)
    [point] = points_of(find_runs([tmp_path]))
    assert len(point.runs) == 2


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *((name, text) for name in ("run.json", "metrics.json") for text in ("{", "[]", "3", "\x00\x01", "[" * 9000)),
        ("run.json", '{"status": "finished", "overrides": "seed=1"}'),
        ("run.json", '{"status": "finished", "overrides": [1]}'),
        ("run.json", '{"status": "finished", "seed": {}}'),
        ("run.json", '{"status": "finished", "wall_seconds": "long"}'),
        ("run.json", '{"status": "finished", "instance_source": [1]}'),
        ("metrics.json", '{"test/student/bag_auroc": "high"}'),
        ("metrics.json", '{"test/student/bag_auroc": [0.5]}'),
        ("metrics.json", '{"test/student/bag_auroc": 1' + "0" * 400 + "}"),
        ("run.json", '{"status": "finished", "wall_seconds": 1' + "0" * 400 + "}"),
        ("run.json", '{"status": "finished", "threads": 0}'),
        ("run.json", '{"status": "finished", "versions": 3}'),
    ],
)
def test_an_unreadable_run_says_so_and_is_not_finished(tmp_path, name, content):
    run = make_run(tmp_path, "weno", [], 0, 1.0)
    (run / name).write_text(content)
    [found] = find_runs([tmp_path])
    assert not found.finished
    assert name in found.fault
    assert "\n" not in found.fault


def test_what_is_not_finite_in_metrics_is_undefined(tmp_path):
    run = make_run(tmp_path, "weno", [], 0, 1.0)
    (run / "metrics.json").write_text('{"test/student/bag_auroc": NaN, "test/student/bag_ap": Infinity}')
    [found] = find_runs([tmp_path])
    assert set(found.metrics.values()) == {None}


@pytest.mark.parametrize(
    ("text", "value"), [("1e-3", 0.001), ("010", 10), ("nan", None), ("inf", None), ("auto", None)]
)
def test_what_is_a_number(text, value):
    assert number(text) == value


def test_validation_chooses_between_settings_and_not_between_data(tmp_path):
    """Two settings on each of two named data sets, and on slides of another list: three choices."""
    other = [f"s{i}" for i in range(40)]
    for data, ids in (("data=colon", None), ("data=breast", None), ("data.slides=b.csv", other)):
        for threshold, val in ((0.5, 0.6), (0.9, 0.3 if data == "data=colon" else 0.7)):
            make_run(tmp_path, "weno", [data, f"hpm.threshold={threshold}"], 0, 1.0, val, ids=ids, fingerprint=data)
    assert set(chosen_points(points_of(find_runs([tmp_path]))).values()) == {
        "weno data=colon hpm.threshold=0.9",
        "weno data=breast hpm.threshold=0.5",
        "weno data.slides=b.csv hpm.threshold=0.5",
    }
