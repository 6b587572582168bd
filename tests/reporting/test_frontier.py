"""Accuracy against cost: what is collected, and which student is the cheapest."""

import io
import json
import re

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_hex

from kd_mil.core.errors import UserError
from kd_mil.evaluation.bootstrap import bootstrap
from kd_mil.reporting.cost_reports import CostReport, find_reports
from kd_mil.reporting.frontier import cheapest_within, collect
from kd_mil.reporting.frontier_view import frontier_figure, print_points


def role(score, gmac, downsample, val=None):
    interval = {"mean": score, "low": score - 0.02, "high": score + 0.02, "defined": 1.0}
    cost = {"gmac": gmac, "gflop": 2 * gmac, "peak_mib": 1.0, "latency_ms": None}
    validation = {"accuracy": score if val is None else val}
    return {"plain": {"accuracy": interval}, "downsample": downsample, "cost": cost, "val": validation}


def student(experiment, score, downsample, seed=0, settings=""):
    roles = {"student": role(score, 1.0 / downsample**2, downsample), "teacher": role(0.5, 1.0, 1.0)}
    return CostReport(experiment, roles, settings, seed)


def teacher(score, seed=0):
    return CostReport("resolution_teacher", {"teacher": role(score, 1.0, 1.0)}, repetition=seed)


REPORTS = [
    teacher(0.90),
    teacher(0.92, seed=1),
    CostReport("resolution_baseline", {"model": role(0.80, 1 / 4, 2.0)}, repetition=0),
    student("resolution_kd", 0.89, 2.0),
    student("resolution_kd", 0.91, 2.0, seed=1),
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
def test_the_cheapest_network_that_is_good_enough(percent, expected):
    found = cheapest_within(collect(REPORTS, "accuracy", "gmac", "plain"), percent)
    assert (found and (found.kind, found.downsample)) == expected


def test_validation_chooses_and_the_baseline_is_a_candidate():
    """By hand: at 1/4 the student is best on the test and bad on validation; there the baseline is within 5 %."""
    reports = [
        CostReport("resolution_teacher", {"teacher": role(0.9, 1.0, 1.0, val=0.8)}, repetition=0),
        CostReport("resolution_kd", {"student": role(0.95, 1 / 16, 4.0, val=0.5)}, repetition=0),
        CostReport("resolution_baseline", {"model": role(0.7, 1 / 16, 4.0, val=0.78)}, repetition=0),
        CostReport("resolution_kd", {"student": role(0.89, 1 / 4, 2.0, val=0.8)}, repetition=0),
    ]
    points = collect(reports, "accuracy", "gmac", "plain")
    found = cheapest_within(points, 5)
    assert (found.kind, found.downsample, found.val_of_teacher) == ("baseline", 4.0, pytest.approx(0.975))
    assert cheapest_within(points, 1).downsample == 2.0
    unvalidated = [report._replace(roles={k: v | {"val": {}} for k, v in report.roles.items()}) for report in reports]
    assert cheapest_within(collect(unvalidated, "accuracy", "gmac", "plain"), 50) is None, "tests choose nothing"


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
    reports = [*REPORTS, *(CostReport("resolution_kd", {"student": one}) for one in (collapsed, skewed, known))]
    points = collect(reports, "accuracy", "gmac", "plain")
    frontier_figure(points, "accuracy", "gmac", 2).savefig(io.BytesIO(), format="png")


def test_copies_of_a_run_count_once(tmp_path):
    for name in ("a", "copy of a"):
        write_run(tmp_path / name, {"roles": REPORTS[0].roles})
    write_run(tmp_path / "b", {"roles": REPORTS[0].roles}, seed=1)
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
        {"roles": {"student": {"downsample": 0, "cost": {}}}},
        {"roles": {"student": {"downsample": 4, "cost": {"gmac": "many"}}}},
        {"roles": {"student": {"downsample": 4, "cost": {}, "plain": {"a": {"mean": "x", "low": "x", "high": "x"}}}}},
    ],
)
def test_a_report_of_another_form_is_one_line(tmp_path, report):
    write_run(tmp_path / "a", report)
    with pytest.raises(UserError, match=r"report.json is damaged"):
        find_reports(str(tmp_path / "a"))


def test_a_cost_or_score_that_a_report_lacks(tmp_path):
    bare = [CostReport("resolution_kd", {"student": {"downsample": 4, "cost": {}, "plain": {}}})]
    with pytest.raises(UserError, match="cost=gmac is not in the report of every kd"):
        collect(bare, "accuracy", "gmac", "plain")
    bare[0].roles["student"]["cost"]["gmac"] = 1.0
    with pytest.raises(UserError, match="metric=accuracy is undefined in every run"):
        collect(bare, "accuracy", "gmac", "plain")


def write_run(directory, report, seed=0, **more):
    """A finished run on images."""
    directory.mkdir()
    record = {"status": "finished", "experiment": "resolution_kd", "seed": seed, "data_fingerprint": "f"} | more
    for name, content in (("run", record), ("report", report), ("metrics", {})):
        (directory / f"{name}.json").write_text(json.dumps(content))


def write_student(root, seed, downsample, score, lr=None, teacher_path=None):
    """A student with a teacher of its own seed, and a learning rate of its own."""
    settings = [f"seed={seed}", f"data.student_downsample={downsample}"]
    settings += [] if lr is None else [f"optimizer.lr={lr}"]
    settings += [f"method.teacher_ckpt={teacher_path or f'runs/teacher/seed={seed}/checkpoints/best.ckpt'}"]
    roles = {"student": role(score, 1.0 / downsample**2, downsample)}
    directory = root / f"{seed},{downsample},{lr},{score}"
    write_run(directory, {"roles": roles}, seed, overrides=settings, data_fingerprint=f"at {downsample}")
    (directory / "images.csv").write_text("image_id,label\n" + "".join(f"i{i},a\n" for i in range(3)))


def test_runs_of_other_settings_are_other_points(tmp_path):
    """By hand: two learning rates at 1/2, one at 1/4; the teachers' checkpoints differ with the seeds alone."""
    for seed in (0, 1):
        write_student(tmp_path, seed, 2, 0.8 + 0.02 * seed, lr=0.1)
        write_student(tmp_path, seed, 2, 0.6, lr=0.2)
        write_student(tmp_path, seed, 4, 0.5, lr=0.1)
    points = collect(find_reports(str(tmp_path / "*")), "accuracy", "gmac", "plain")
    assert [(point.name, point.downsample, point.runs) for point in points] == [
        ("kd optimizer.lr=0.1", 2, 2),
        ("kd optimizer.lr=0.2", 2, 2),
        ("kd optimizer.lr=0.1", 4, 2),
    ]
    assert [point.score for point in points] == pytest.approx([0.81, 0.6, 0.5])


def test_a_student_is_compared_with_the_teacher_of_its_seed(tmp_path, capsys):
    """Seed 1 is easy; a student that has only that one is not better for it. By hand: .85 / .9 and .9 / 1."""
    reports = [teacher(0.8), teacher(1.0, seed=1), student("resolution_kd", 0.9, 4.0, seed=1)]
    reports += [student("resolution_kd", score, 2.0, seed) for seed, score in enumerate((0.8, 0.9))]
    points = collect(reports, "accuracy", "gmac", "plain")
    shares = {(point.kind, point.downsample): (point.of_teacher, point.pairs) for point in points}
    assert shares == {
        ("teacher", 1.0): (1.0, 2),
        ("kd", 2.0): (pytest.approx(1.7 / 1.8), 2),
        ("kd", 4.0): (pytest.approx(0.9), 1),
    }
    assert cheapest_within(points, 6).downsample == 2.0, "as many seeds as it has: 0.9 is the mean of the teachers"
    assert cheapest_within(points, 10).downsample == 4.0
    print_points(points, None, 1, "accuracy", "gmac", tmp_path)
    assert "90.00 (1)" in capsys.readouterr().out


def test_without_a_common_seed_means_are_compared():
    points = collect([teacher(0.8), student("resolution_kd", 0.6, 2.0, seed=5)], "accuracy", "gmac", "plain")
    assert (points[1].of_teacher, points[1].pairs) == (pytest.approx(0.75), 0)


def test_images_pair_runs_of_other_resolutions_and_other_teachers_make_no_copies(tmp_path):
    write_student(tmp_path, 0, 2, 0.8)
    write_student(tmp_path, 0, 4, 0.7)
    write_student(tmp_path, 0, 2, 0.6, teacher_path="runs/teacher/seed=1/checkpoints/best.ckpt")
    reports = find_reports(str(tmp_path / "*"))
    assert len(reports) == 3
    assert len({report.repetition for report in reports}) == 1


def test_without_a_teacher_there_is_no_answer():
    assert cheapest_within(collect(REPORTS[2:3], "accuracy", "gmac", "plain"), 50) is None


def test_costs_that_were_not_measured_are_refused():
    with pytest.raises(UserError, match="latency_repeats"):
        collect(REPORTS, "accuracy", "latency_ms", "plain")
    with pytest.raises(UserError, match=r"cost=seconds was not measured in every teacher: run again with cost_of=4"):
        collect(REPORTS, "accuracy", "seconds", "plain")


def test_only_finished_runs_count(tmp_path):
    for name, status in (("a", "finished"), ("b", "running")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(json.dumps({"status": status, "experiment": "resolution_kd"}))
        (tmp_path / name / "report.json").write_text(json.dumps({"roles": REPORTS[0].roles}))
        (tmp_path / name / "metrics.json").write_text("{}")
    assert [report.experiment for report in find_reports(str(tmp_path / "*"))] == ["resolution_kd"]
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
    figure = frontier_figure(collect(REPORTS, "accuracy", "gmac", "plain"), "accuracy", "gmac", 2)
    [legend] = figure.legends
    assert {text.get_text() for text in legend.get_texts()} == {"teacher", "baseline", "kd", "teacher less 2 %"}
    assert figure.axes[0].get_xscale() == "log"


def test_no_two_lines_of_a_figure_have_one_colour():
    [point] = collect(REPORTS, "accuracy", "gmac", "plain")[-1:]
    kinds = ["teacher", "baseline", *["kd"] * 4, *["kd_ad"] * 4]
    points = [point._replace(kind=kind, settings=f"set={number}") for number, kind in enumerate(kinds)]
    [legend] = frontier_figure(points, "accuracy", "gmac", 2).legends
    colours = [to_hex(line.get_color()) for line in legend.get_lines()[:10]]
    assert len(set(colours)) == 10


def test_every_number_printed_is_computed_again(tmp_path, capsys, monkeypatch):
    """With pandas, from the runs: cost, score, interval, extremes, and the share of the teacher of the same seeds."""
    scores = {("teacher", 1.0): [0.9, 0.95], ("baseline", 2.0): [0.7, 0.72], ("kd", 2.0): [0.88, 0.9]}
    reports = [teacher(score, seed) for seed, score in enumerate(scores[("teacher", 1.0)])]
    for seed, score in enumerate(scores[("baseline", 2.0)]):
        reports.append(CostReport("resolution_baseline", {"model": role(score, 0.25, 2.0)}, repetition=seed))
    reports += [student("resolution_kd", score, 2.0, seed) for seed, score in enumerate(scores[("kd", 2.0)])]
    points = collect(reports, "accuracy", "gmac", "plain")
    monkeypatch.setenv("COLUMNS", "200")
    print_points(points, cheapest_within(points, 5), 5, "accuracy", "gmac", tmp_path)
    printed = capsys.readouterr().out
    taught = pd.Series(scores[("teacher", 1.0)])
    for (kind, downsample), values in scores.items():
        own = pd.Series(values)
        [line] = [line for line in printed.splitlines() if line.startswith(f"│ {kind} ")]
        cells = [cell.strip() for cell in re.split("[│|┃]", line) if cell.strip()]
        assert cells == [
            *(kind, f"1/{downsample:g}", str(len(own)), f"{1 / downsample**2:.4g}", f"{100 * own.mean():.2f}"),
            f"{100 * (own - 0.02).mean():.2f} to {100 * (own + 0.02).mean():.2f}",
            f"{100 * own.min():.2f} to {100 * own.max():.2f}",
            *(f"{100 * own.sum() / taught.sum():.2f} (2)", f"{100 * own.sum() / taught.sum():.2f}"),
        ]
    assert "cheapest network within 5 % of the teacher on validation: kd at 1/2, 0.25 gmac" in printed


def test_seconds_validation_and_paired_differences_come_from_the_runs(tmp_path):
    """By hand: of 4 cases the teacher is right in all, the student in 3; the worst resample has that case 4 times."""
    right = {"teacher": [0.9, 0.9, 0.9, 0.9], "student": [0.9, 0.1, 0.9, 0.9]}
    for name, downsample in (("teacher", 1.0), ("student", 4.0)):
        probs = np.array(right[name])
        directory = tmp_path / name
        write_run(directory, {"roles": {name: role(probs.round().mean(), 1 / downsample, downsample)}})
        record = json.loads((directory / "run.json").read_text()) | {"experiment": f"resolution_{name}"}
        (directory / "run.json").write_text(json.dumps(record))
        measured = {f"cost/{name}/seconds": 1 / downsample, f"val/{name}/image_accuracy": 0.5}
        (directory / "metrics.json").write_text(json.dumps(measured))
        table = {"image_id": list("abcd"), "case_id": list("abcd"), "label": ["b"] * 4}
        pd.DataFrame(table | {f"{name}_prob_a": 1 - probs, f"{name}_prob_b": probs}).to_csv(directory / "images.csv")
    teacher, student = collect(find_reports(str(tmp_path / "*")), "accuracy", "seconds", "plain")
    assert (teacher.cost, student.cost, student.val_of_teacher) == (1.0, 0.25, 1.0)
    assert (teacher.less_low, student.gain_low) == (None, None)
    assert -0.8 <= student.less_low <= -0.5
    assert student.less_high == 0
