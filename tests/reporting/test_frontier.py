"""Accuracy against cost: what is collected, and which student is the cheapest."""

import io
import json

import numpy as np
import pytest
import torch

from kd_mil.core.errors import UserError
from kd_mil.evaluation.bootstrap import bootstrap
from kd_mil.reporting.frontier import cheapest_within, collect, find_reports, frontier_figure


def role(score, gmac, downsample):
    interval = {"mean": score, "low": score - 0.02, "high": score + 0.02, "defined": 1.0}
    cost = {"gmac": gmac, "gflop": 2 * gmac, "peak_mib": 1.0, "latency_ms": None}
    return {"plain": {"accuracy": interval}, "downsample": downsample, "cost": cost}


def student(experiment, score, downsample):
    cost = 1.0 / downsample**2
    return experiment, {"roles": {"student": role(score, cost, downsample), "teacher": role(0.5, 1.0, 1.0)}}


REPORTS = [
    ("resolution_teacher", {"roles": {"teacher": role(0.90, 1.0, 1.0)}}),
    ("resolution_teacher", {"roles": {"teacher": role(0.92, 1.0, 1.0)}}),
    ("resolution_baseline", {"roles": {"model": role(0.80, 1 / 4, 2.0)}}),
    student("resolution_kd", 0.89, 2.0),
    student("resolution_kd", 0.91, 2.0),
    student("resolution_kd", 0.70, 4.0),
]


def test_points_are_means_over_runs_the_dearest_first():
    points = collect(REPORTS, "accuracy", "gmac", "plain")
    assert [(point.kind, point.downsample, point.runs) for point in points] == [
        ("teacher", 1.0, 2),
        ("baseline", 2.0, 1),
        ("kd", 2.0, 2),
        ("kd", 4.0, 1),
    ]
    teacher, kd = points[0], points[2]
    assert teacher.score == pytest.approx(0.91), "the teacher of its own runs, not as students report it"
    assert (kd.score, kd.low, kd.high) == pytest.approx((0.90, 0.88, 0.92))
    assert (kd.least, kd.most) == pytest.approx((0.89, 0.91))


def test_without_runs_of_its_own_the_teacher_is_taken_from_its_students():
    points = collect(REPORTS[2:], "accuracy", "gmac", "plain")
    assert points[0].kind == "teacher"
    assert (points[0].score, points[0].runs) == (0.5, 3)


@pytest.mark.parametrize(("percent", "expected"), [(2, ("kd", 2.0)), (30, ("kd", 4.0)), (15, ("kd", 2.0)), (0, None)])
def test_the_cheapest_student_that_is_good_enough(percent, expected):
    found = cheapest_within(collect(REPORTS, "accuracy", "gmac", "plain"), percent)
    assert (found and (found.kind, found.downsample)) == expected


def test_statistics_are_those_of_numpy():
    [point] = [
        point for point in collect(REPORTS, "accuracy", "gmac", "plain") if (point.kind, point.runs) == ("kd", 2)
    ]
    scores = np.array([0.89, 0.91])
    assert (point.score, point.low, point.high) == pytest.approx(
        (scores.mean(), scores.mean() - 0.02, scores.mean() + 0.02)
    )
    assert (point.least, point.most, point.cost) == (scores.min(), scores.max(), 0.25)


@pytest.mark.parametrize("constant", [0.1, 0.7, 1 / 3])
def test_a_student_that_has_collapsed_is_drawn(constant):
    """All resamples agree, and their mean misses their percentiles by rounding; so may a very skewed score by more."""
    found = bootstrap(torch.tensor([0] * 7 + [1] * 3), torch.zeros(10, dtype=torch.long), 2, 2000)["recall"]
    collapsed = role(0.5, 0.01, 8.0)
    collapsed["plain"]["accuracy"] = {"mean": constant, "low": constant + 1e-16, "high": constant - 1e-16}
    skewed = role(0.5, 0.02, 6.0)
    skewed["plain"]["accuracy"] = {"mean": 0.02, "low": 0.0, "high": 0.0}
    known = role(0.5, 0.03, 5.0)
    known["plain"]["accuracy"] = found._asdict()
    reports = [*REPORTS, *(("resolution_kd", {"roles": {"student": one}}) for one in (collapsed, skewed, known))]
    points = collect(reports, "accuracy", "gmac", "plain")
    frontier_figure(points, "accuracy", "gmac", 2).savefig(io.BytesIO(), format="png")


def test_copies_of_a_run_count_once(tmp_path):
    for name in ("a", "copy of a"):
        write_run(tmp_path / name, REPORTS[0][1])
    write_run(tmp_path / "b", REPORTS[0][1], seed=1)
    assert len(find_reports(str(tmp_path / "*"))) == 2


@pytest.mark.parametrize(
    "report",
    [
        {},
        {"roles": []},
        {"roles": {}},
        {"roles": {"student": 3}},
        {"roles": {"student": {"downsample": "four", "cost": {}}}},
        {"roles": {"student": {"downsample": 4, "plain": {}}}},
        {"roles": {"student": {"downsample": 4, "cost": {}, "plain": {"accuracy": 0.5}}}},
        {"roles": {"student": {"downsample": 4, "cost": {}, "plain": {"accuracy": {"mean": 0.5}}}}},
    ],
)
def test_a_report_of_another_form_is_one_line(tmp_path, report):
    write_run(tmp_path / "a", report)
    with pytest.raises(UserError, match=r"report.json is damaged"):
        find_reports(str(tmp_path / "a"))


def test_a_cost_or_score_that_a_report_lacks(tmp_path):
    bare = [("resolution_kd", {"roles": {"student": {"downsample": 4, "cost": {}, "plain": {}}}})]
    with pytest.raises(UserError, match="cost=gmac is not in the report of every kd"):
        collect(bare, "accuracy", "gmac", "plain")
    bare[0][1]["roles"]["student"]["cost"]["gmac"] = 1.0
    with pytest.raises(UserError, match="metric=accuracy is undefined in every run"):
        collect(bare, "accuracy", "gmac", "plain")


def write_run(directory, report, seed=0):
    """A finished run on images."""
    directory.mkdir()
    record = {"status": "finished", "experiment": "resolution_kd", "seed": seed, "data_fingerprint": "f"}
    for name, content in (("run", record), ("report", report), ("metrics", {})):
        (directory / f"{name}.json").write_text(json.dumps(content))


def test_a_baseline_is_no_student():
    assert cheapest_within(collect(REPORTS[:3], "accuracy", "gmac", "plain"), 50) is None


def test_without_a_teacher_there_is_no_answer():
    assert cheapest_within(collect(REPORTS[2:3], "accuracy", "gmac", "plain"), 50) is None


def test_costs_that_were_not_measured_are_refused():
    with pytest.raises(UserError, match="latency_repeats"):
        collect(REPORTS, "accuracy", "latency_ms", "plain")


def test_only_finished_runs_count(tmp_path):
    for name, status in (("a", "finished"), ("b", "running")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(json.dumps({"status": status, "experiment": "resolution_kd"}))
        (tmp_path / name / "report.json").write_text(json.dumps(REPORTS[0][1]))
        (tmp_path / name / "metrics.json").write_text("{}")
    assert [experiment for experiment, _ in find_reports(str(tmp_path / "*"))] == ["resolution_kd"]
    with pytest.raises(UserError, match="no finished run"):
        find_reports(str(tmp_path / "none*"))


@pytest.mark.parametrize("name", ["run.json", "report.json"])
def test_a_damaged_file_is_one_line(tmp_path, name):
    for file in ("run.json", "report.json", "metrics.json"):
        (tmp_path / file).write_text(json.dumps({"status": "finished", "experiment": "resolution_kd"}))
    (tmp_path / name).write_text("{")
    with pytest.raises(UserError, match=f"{name} is damaged"):
        find_reports(str(tmp_path))


def test_figure_shows_every_kind_with_the_teacher_level():
    axes = frontier_figure(collect(REPORTS, "accuracy", "gmac", "plain"), "accuracy", "gmac", 2).axes[0]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert set(labels) == {"teacher", "baseline", "kd", "teacher less 2 %"}
    assert axes.get_xscale() == "log"
