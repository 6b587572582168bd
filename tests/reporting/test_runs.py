"""Which runs repeat a point, and which point validation chooses."""

import pytest

from kd_mil.reporting.runs import chosen_points, common_settings, find_runs, points_of
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
