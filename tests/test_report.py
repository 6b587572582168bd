"""The command `kd_mil.report`: a page that stands alone, its tables, and one line for a mistake."""

import json
import re
import sys
from urllib.parse import unquote

import pandas as pd
import pytest

from kd_mil import report
from tests.support.command import kd_mil
from tests.support.runs import make_run, make_sweep


@pytest.fixture
def runs(tmp_path):
    make_sweep(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_the_command_writes_a_page_that_needs_nothing_beside_it(runs):
    result = kd_mil("report", str(runs), "baseline=mil", "resamples=50", cwd=runs)
    out = runs / "report"
    page = (out / "report.html").read_text()
    assert "from</td><td><code>25 % tumour area" in page
    assert "Not finished: 1" in page
    assert not re.search(r"(src|href)=['\"](https?:)?//", page)
    links = re.findall(r"href='([^']*)'", page)
    assert links
    assert all((out / unquote(link)).exists() for link in links)
    assert page.count("data:image/png;base64,") == 2
    assert page.count("<tr class='chosen'>") == 2
    content = json.loads((out / "report.json").read_text())
    assert content["chosen_on_validation"]["weno"] == "weno hpm.threshold=0.9"
    table = pd.read_csv(out / "report.csv")
    assert len(table) == 4
    assert "**weno hpm.threshold=0.9**" in (out / "report.md").read_text()
    assert len(list((out / "tensorboard").iterdir())) == 7
    assert "hpm.threshold=0.9" in result.stdout
    assert "2 pairs" in (out / "report.md").read_text()
    again = kd_mil("report", str(runs), cwd=runs)
    assert again.returncode == 0, "a report does not take itself for a run"


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "message"), [(["nowhere"], "no such folder"), ([], "no folder given")])
def test_a_mistake_is_one_line(arguments, message, tmp_path):
    result = kd_mil("report", *arguments, cwd=tmp_path, check=False)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_brackets_of_a_setting_are_shown(tmp_path, monkeypatch, capsys):
    """Rich would take `[horizontal]` for a colour."""
    for flips in ("[horizontal]", "[]"):
        make_run(tmp_path, "weno", [f"augment.flips={flips}"], 0, 1.0)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["report", str(tmp_path), "resamples=5", "out=folder [bold], here"])
    report.start()
    printed = capsys.readouterr().out
    assert "augment.flips=[horizontal]" in printed
    assert "folder [bold], here/report.html" in printed
    assert (tmp_path / "folder [bold], here" / "report.json").is_file()
