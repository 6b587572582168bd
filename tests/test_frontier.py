"""Accuracy against cost: what is collected, which student is the cheapest, and the real commands end to end."""

import json

import numpy as np
import pandas as pd
import pytest

from kd_mil.core.errors import UserError
from kd_mil.reporting.frontier import cheapest_within, collect, find_reports, frontier_figure
from tests.support.command import kd_mil
from tests.support.tiny_images import write_pictures


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
    assert [experiment for experiment, _ in find_reports(str(tmp_path / "*"))] == ["resolution_kd"]
    with pytest.raises(UserError, match="no finished run"):
        find_reports(str(tmp_path / "none*"))


def test_figure_shows_every_kind_with_the_teacher_level():
    axes = frontier_figure(collect(REPORTS, "accuracy", "gmac", "plain"), "accuracy", "gmac", 2).axes[0]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert set(labels) == {"teacher", "baseline", "kd", "teacher less 2 %"}
    assert axes.get_xscale() == "log"


@pytest.mark.slow
def test_commands_from_teacher_to_figure(tmp_path):
    write_pictures(tmp_path / "pictures")
    small = ["trainer=cpu", "data=paired_images", "data.root=pictures", "data.images_per_step=8"]
    small += ["method.network.width=8", "method.network.groups=8", "method.network.stem=small"]
    kd_mil(
        "run", "experiment=resolution_teacher", *small, "method.teacher_epochs=3", "hydra.run.dir=runs/t", cwd=tmp_path
    )
    teacher = "method.teacher_ckpt=runs/t/checkpoints/best.ckpt"
    student = [*small, "method.student_epochs=2", teacher, "data.student_downsample=4", "method.finetune=on"]
    student += ["method.finetune_epochs=1", "hydra.run.dir=runs/s"]
    kd_mil("run", "experiment=resolution_kd", *student, cwd=tmp_path)
    out = tmp_path / "runs" / "s"
    for name in ("metrics.json", "report.json", "splits.csv", "figures/confusion.png", "figures/pairs.png"):
        assert (out / name).is_file(), name
    metrics, images = json.loads((out / "metrics.json").read_text()), pd.read_csv(out / "images.csv")
    decided = np.where(images.student_prob_malignant > 0.5, "malignant", "benign")
    assert metrics["test/student/image_accuracy"] == pytest.approx((decided == images.label).mean())
    taught = json.loads((tmp_path / "runs" / "t" / "metrics.json").read_text())
    assert metrics["test/teacher/image_loss"] == pytest.approx(taught["test/teacher/image_loss"])
    cost = {name: one["cost"] for name, one in json.loads((out / "report.json").read_text())["roles"].items()}
    assert 14 < cost["teacher"]["gmac"] / cost["student"]["gmac"] < 18
    result = kd_mil("frontier", "runs=runs/*", "within=99", cwd=tmp_path)
    assert "cheapest student within 99 % of the teacher: kd at 1/4" in result.stdout
    assert (tmp_path / "frontier" / "frontier.png").is_file()
    wrong = ["data.seed=1", "hydra.run.dir=runs/w"]
    refused = kd_mil("run", "experiment=resolution_kd", *student[:-1], *wrong, cwd=tmp_path, check=False)
    assert refused.returncode == 2
    assert "validation and test images differ" in refused.stderr
