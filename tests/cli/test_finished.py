"""A finished run on embedded data answers at once; whatever may have changed is looked at as before."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from kd_mil.core.run_files import write_json
from kd_mil.core.version import __version__
from kd_mil.jobs.finished import is_embedded, is_of_this_code
from tests.support.command import ROOT

DIGITS = {"_target_": "kd_mil.data.patches.digits_mil.DigitsMIL", "loading": {"bags_per_step": 1}, "split_file": None}
CODE = """
import sys
from kd_mil.core import records
records.git_commit = lambda: "abc"
records.config_hash = lambda config: "h"
sys.argv = ["run", "experiment=mil_max", "hydra.run.dir=finished"]
from kd_mil.run import main
main()
print(sorted({"torch", "lightning", "numpy", "pandas"} & set(sys.modules)))
"""


@pytest.mark.parametrize(
    ("change", "embedded"),
    [
        ({}, True),
        ({"cache_dir": "."}, True),
        ({"split_file": "splits.csv"}, False),
        ({"loading": {"own": ["splits.csv"]}}, False),
        ({"root": None}, False),
        ({"_target_": "my_package.MyBags"}, False),
    ],
)
def test_data_that_nobody_can_have_changed(change, embedded, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "splits.csv").touch()
    assert is_embedded(DIGITS | change) is embedded


@pytest.mark.parametrize(
    ("earlier", "now", "same"),
    [
        ({"versions": {"kd_mil": __version__}, "git_commit": "abc"}, "abc", True),
        ({"versions": {"kd_mil": __version__}, "git_commit": None}, None, True),
        ({"versions": {"kd_mil": __version__}, "git_commit": "abc+"}, "abc+", False),
        ({"versions": {"kd_mil": __version__}, "git_commit": "abc"}, "abd", False),
        ({"versions": {"kd_mil": "0.1"}, "git_commit": "abc"}, "abc", False),
        ({}, None, False),
    ],
)
def test_code_that_nobody_can_have_changed(earlier, now, same, tmp_path):
    write_json(tmp_path / "run.json", earlier)
    assert is_of_this_code(SimpleNamespace(path=tmp_path / "run.json", git_commit=now)) is same


@pytest.fixture
def finished(tmp_path):
    """A folder with what a finished run leaves that its table needs."""
    record = {"status": "finished", "config_hash": "h", "git_commit": "abc", "versions": {"kd_mil": __version__}}
    (tmp_path / "finished").mkdir()
    write_json(tmp_path / "finished" / "run.json", record | {"monitor": "val/model/bag_loss"})
    write_json(tmp_path / "finished" / "metrics.json", {"test/model/bag_auroc": 0.75, "val/model/bag_loss": 0.5})
    return tmp_path


def test_its_table_needs_no_slow_library(finished):
    words = [sys.executable, "-c", CODE]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=finished, env=environment, capture_output=True, text=True, check=False)
    assert "already finished" in done.stdout, done.stderr
    assert "0.7500" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"
