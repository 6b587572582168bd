"""What a run says at its end: numbers, the epoch they are of, and where to look next."""

import shlex

import pytest

from kd_mil.training.final_table import print_results

METRICS = {"test/teacher/bag_auroc": 0.91234, "test/student/bag_auroc": None, "val/teacher/bag_loss": 0.5}


def lines_of(capsys, directory, record):
    print_results(METRICS, directory, record)
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("select", "line"),
    [("best", "tested: epoch 3 of 7, chosen by val/teacher/bag_loss"), ("last", "tested: epoch 3 of 7, the last")],
)
def test_the_epoch_that_was_tested_is_named(select, line, tmp_path, capsys):
    record = {"tested_epoch": 3, "epochs": 7, "select": select, "monitor": "val/teacher/bag_loss"}
    lines = lines_of(capsys, tmp_path, record)
    assert line in lines
    assert any("bag_auroc" in text and "0.9123" in text for text in lines)


def test_scores_that_no_role_has_are_counted_in_place_of_rows(tmp_path, capsys):
    nothing = {"test/teacher/instance_auroc": None, "test/student/instance_auroc": float("nan")}
    print_results(METRICS | nothing | {"test/student/instance_ap": None}, tmp_path, {})
    table, line = capsys.readouterr().out.split("undefined with these labels: ")
    assert "instance" not in table
    assert "bag_auroc" in table
    assert line.startswith("2 scores, such as instance_auroc (null in metrics.json)\n")


def test_figures_and_curves_are_named_where_there_are_some(tmp_path, capsys):
    directory = tmp_path / "a run"
    directory.mkdir()
    assert lines_of(capsys, directory, {})[-1] == f"results in {directory}"
    for name in ("figures", "figures/maps", "tensorboard"):
        (directory / name).mkdir()
    for number in range(5):
        (directory / "figures" / f"f{number}.png").touch()
    *_, figures, curves = lines_of(capsys, directory, {})
    assert figures == f"figures in {directory / 'figures'}: f0, f1, f2, f3, f4"
    assert shlex.split(curves)[1:] == ["tensorboard", "--logdir", str(directory)]
    (directory / "figures" / "maps" / "g.png").touch()
    assert lines_of(capsys, directory, {})[-2].endswith(": f0, f1, f2, f3 and 2 more")
