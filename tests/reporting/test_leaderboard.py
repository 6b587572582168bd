"""Ranks over data sets by hand, and the published example of their critical difference."""

import itertools
import json
import math

import numpy as np
import pytest
from scipy import stats

from kd_mil.reporting.leaderboard import (
    alike,
    critical_difference,
    friedman_p,
    leaderboard,
    leaderboard_facts,
    leaderboard_figure,
    leaderboard_table,
    leaderboard_text,
    without_gap,
)
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
    assert board.friedman_p == counted([[1, 3, 2], [1, 2, 3], [1, 2.5, 2.5]])
    assert board.left_out == []
    table = leaderboard_table(board)
    assert list(table) == ["method", "mean_rank", "set0", "set1", "set2"]
    assert len(leaderboard_figure(board).axes[0].get_yticks()) == 3


def counted(ranks):
    """Friedman's p value by trying every order of the ranks of each data set."""

    def statistic(rows):
        return (np.sum(rows, axis=0) ** 2).sum()

    tried = itertools.product(*(itertools.permutations(row) for row in ranks))
    return np.mean([statistic(rows) >= statistic(ranks) for rows in tried])


def test_two_data_sets_that_agree_by_hand():
    """One of the six orders of the second agrees with the first; the chi-square law says 0.135 instead."""
    assert friedman_p(np.array([[1.0, 1], [2, 2], [3, 3]])) == pytest.approx(1 / 6)
    assert friedman_p(np.full((3, 4), 2.0)) == 1, "methods that tie everywhere"
    assert friedman_p(np.array([[1.0] * 5, [2.0] * 5])) == pytest.approx(2 / 2**5), "the sign test of two methods"


def test_many_data_sets_have_the_p_value_of_scipy():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(4, 40)) + np.array([[0.0], [0.1], [0.3], [0.3]])
    expected = stats.friedmanchisquare(*values).pvalue
    assert 0.01 < expected < 0.9
    assert friedman_p(stats.rankdata(values, axis=0)) == pytest.approx(expected, abs=0.03)


def test_results_that_differ_by_rounding_share_a_rank(tmp_path):
    for number in range(2):
        for experiment, value in {"weno": 0.1 + 0.2, "mil": 0.3}.items():
            directory = make_run(tmp_path, experiment, [f"data=set{number}"], 0, 1.0)
            (directory / "metrics.json").write_text(json.dumps({"test/student/bag_auroc": value}))
    board = leaderboard(points_of(find_runs([tmp_path])), "bag_auroc")
    assert board.mean_ranks.tolist() == [1.5, 1.5]
    assert board.friedman_p == 1


def test_missing_results_leave_out_as_few_as_can_be(points, tmp_path):
    """A method that was tried on a further data set takes the others' ranks away from nobody."""
    make_run(tmp_path, "weno", ["data=set9"], 0, 1.0)
    make_run(tmp_path, "new", ["data=set0"], 0, 1.0)
    board = leaderboard(points_of(find_runs([tmp_path])), "bag_auroc")
    assert (set(board.methods), board.data_sets) == ({f"{name}, student" for name in VALUES}, ["set0", "set1", "set2"])
    assert board.left_out == ["new, student", "set9"]
    assert "left out, since results are missing: new, student, set9." in leaderboard_text(board)


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ([{"a", "b"}, {"a", "b"}, {"a", "b", "c", "d"}], {"a", "b"}),
        ([{"a", "b", "c"}, {"b", "c", "d"}], {"b", "c"}),
        ([{"a", "b", "c", "d"}] * 2 + [{"a", "b"}], {"a", "b", "c", "d"}),
    ],
)
def test_the_largest_choice_without_a_gap(known, expected):
    assert without_gap(known) == expected


def test_the_text_says_what_few_data_sets_cannot_show(points):
    """Three methods on three data sets: ranks differ by at most 2, and 1.91 apart is significant; on two it is 2.34."""
    board = leaderboard(points, "bag_auroc")
    assert board.critical_difference == pytest.approx(2.343 * math.sqrt(3 * 4 / (6 * 3)), rel=1e-3)
    assert "mean ranks 1.91 apart differ at 5 % (Nemenyi); bars join those that do not." in leaderboard_text(board)
    fewer = leaderboard([point for point in points if "set2" not in point.name], "bag_auroc")
    assert "2.34 apart differ at 5 % (Nemenyi), which so few data sets cannot reach" in leaderboard_text(fewer)
    assert json.loads(json.dumps(leaderboard_facts(board)))["friedman_p"] == board.friedman_p


def test_bars_join_what_does_not_differ(points):
    """By hand; of groups within one another the larger."""
    assert alike(np.array([1.0, 2.0, 2.5, 4.0]), 1.6) == [(0, 2), (2, 3)]
    assert alike(np.array([1.0, 2.0, 2.5, 4.0]), 1.0) == [(1, 2)]
    assert alike(np.array([1.0, 2.0]), math.nan) == []
    board = leaderboard(points, "bag_auroc")
    [axes] = leaderboard_figure(board).axes
    assert len(axes.lines) == 1 + 1, "the ranks 1, 2.5 and 2.5 lie within 1.91"


def test_the_example_of_the_paper():
    """Demšar 2006, Sec. 3.2.2: four classifiers on 14 data sets, q = 2.569, CD = 1.25."""
    assert critical_difference(4, 14) == pytest.approx(2.569 * math.sqrt(4 * 5 / (6 * 14)), rel=1e-3)
    assert math.isnan(critical_difference(2, 14))


def test_one_data_set_is_no_leaderboard(points):
    assert leaderboard([point for point in points if "set0" in point.name], "bag_auroc") is None
    assert leaderboard(points, "bag_ap") is None
