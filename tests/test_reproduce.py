"""The command `kd_mil.reproduce`: runs what is missing, keeps what is there, and prints it beside the paper."""

import pandas as pd
import pytest

from tests.support.command import kd_mil

ASKED = ("paper=distill_to_label", "table=fig3", "scale=small", "resamples=20")
TINY = "settings=method.teacher_epochs=1 method.student_epochs=1 data.max_train_bags=20 data.max_test_bags=20"


def lines(folder):
    return pd.read_csv(folder / "reproduce" / "distill_to_label_fig3_small.csv", keep_default_na=False)


@pytest.mark.slow
def test_what_is_missing_is_run_once(tmp_path):
    """Before, after, and again: one run serves both rows, and a finished one stays as it is."""
    before = kd_mil("reproduce", *ASKED, "start=false", cwd=tmp_path)
    assert "1 runs belong to these tables; start=true runs those that are missing" in before.stdout
    assert set(lines(tmp_path).note) == {"the figure prints no numbers; not run yet, 1 to go"}
    after = kd_mil("reproduce", *ASKED, TINY, cwd=tmp_path)
    found = lines(tmp_path)
    assert found.ours.astype(float).between(0, 1).all()
    assert found[["seeds", "runs"]].to_numpy().tolist() == [[1, 1]] * 2
    assert set(found.note) == {f"the figure prints no numbers; with {TINY.removeprefix('settings=')}"}
    assert "p. unknown" in after.stdout
    [record] = (tmp_path / "reproduce" / "runs").rglob("run.json")
    written = record.stat().st_mtime_ns
    kd_mil("reproduce", *ASKED, TINY, "seeds=[0,0]", cwd=tmp_path)
    assert record.stat().st_mtime_ns == written
    assert lines(tmp_path).equals(found)
    page = (tmp_path / "reproduce" / "distill_to_label_fig3_small.html").read_text()
    assert f"<td class='n'>{float(found.ours[0]):.3f}</td>" in page


@pytest.mark.slow
def test_data_that_are_not_there_are_said_in_every_line(tmp_path):
    kd_mil("reproduce", "paper=weno", "table=1a", "scale=paper", "paths.data_dir=nowhere", cwd=tmp_path)
    found = pd.read_csv(tmp_path / "reproduce" / "weno_1a_paper.csv")
    assert len(found) == 30
    expected = "no data: cifar10 or cifar-10-batches-py or cifar10-jpg is not in nowhere"
    assert set(found.note) == {expected}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((), "paper"),
        (("paper=weno", "table=7"), "table=7"),
        (("paper=weno", "scale=tiny"), "scale=tiny: choose paper or small"),
        (("paper=weno", "seeds=[]", "start=false"), "number of seeds"),
    ],
)
def test_a_mistake_is_one_line(settings, message, tmp_path):
    result = kd_mil("reproduce", *settings, cwd=tmp_path, check=False)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
