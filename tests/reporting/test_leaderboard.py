"""Ranks over data sets by hand, and the published example of their critical difference."""

import json
import math

import numpy as np
import pytest
from scipy import stats

from kd_mil.reporting.leaderboard import critical_difference, leaderboard, leaderboard_figure, leaderboard_table
from kd_mil.reporting.runs import find_runs, points_of
from tests.support.runs import make_run

VALUES = {"weno": [0.9, 0.8, 0.7], "mil": [0.8, 0.7, 0.6], "d2l": [0.85, 0.6, 0.6]}


@pytest.fixture
def points(tmp_path):
    for experiment, values in VALUES.items():
        for number, value in enumerate(values):
            for seed in (0, 1):
                directory = make_run(tmp_path, experiment, [f"data=set{number}"], seed, 1.0, fingerprint=f"set{number}")
                metrics = {"test/student/bag_auroc": value + (0.01 if seed else -0.01)}
                (directory / "metrics.json").write_text(json.dumps(metrics))
    return points_of(find_runs([tmp_path]))


def test_mean_ranks_by_hand(points):
    """weno is first thrice; d2l is second, third and shares the second place, mil the other way round."""
    board = leaderboard(points, "bag_auroc")
    assert board.methods[0] == "weno, student"
    assert dict(zip(board.methods, board.mean_ranks, strict=True)) == {
        "weno, student": 1,
        "mil, student": pytest.approx(2.5),
        "d2l, student": pytest.approx(2.5),
    }
    assert board.data_sets == ["set0", "set1", "set2"]
    assert board.values[0].tolist() == pytest.approx(VALUES["weno"])
    assert board.friedman_p == pytest.approx(stats.friedmanchisquare(*np.array(list(VALUES.values()))).pvalue)
    table = leaderboard_table(board)
    assert list(table) == ["method", "mean_rank", "set0", "set1", "set2"]
    assert len(leaderboard_figure(board).axes[0].get_yticks()) == 3


def test_the_example_of_the_paper():
    """Demšar 2006, Sec. 3.2.2: four classifiers on 14 data sets, q = 2.569, CD = 1.25."""
    assert critical_difference(4, 14) == pytest.approx(2.569 * math.sqrt(4 * 5 / (6 * 14)), rel=1e-3)
    assert math.isnan(critical_difference(2, 14))


def test_one_data_set_is_no_leaderboard(points):
    assert leaderboard([point for point in points if "set0" in point.name], "bag_auroc") is None
    assert leaderboard(points, "bag_ap") is None
