"""The comparison with the originals: how it imports from checkouts, and what it asks for."""

import importlib
import sys

import pytest
import torch

from tests.support.command import ROOT


@pytest.fixture
def script(monkeypatch):
    """A module of the comparison by name; none of them stays behind."""
    known = set(sys.modules)
    monkeypatch.syspath_prepend(ROOT / "experiments" / "equivalence")
    yield importlib.import_module
    for name in set(sys.modules) - known:
        if str(ROOT / "experiments") in (getattr(sys.modules[name], "__file__", None) or ""):
            del sys.modules[name]


def test_modules_of_two_checkouts_do_not_meet(script, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name / "models").mkdir(parents=True)
        (tmp_path / name / "models" / "net.py").write_text(f"from logger_of_theirs import log\nNAME = {name!r}\n")
    found = []
    for name in ("one", "two"):
        with script("checkouts").checkout(str(tmp_path / name), "logger_of_theirs") as module:
            found.append(module("models.net").NAME)
    assert found == ["one", "two"]
    assert not {"models", "models.net", "logger_of_theirs"} & set(sys.modules)
    assert str(tmp_path / "one") not in sys.path


def test_difference_is_in_units_of_the_original(script):
    found = script("aggregators").relative(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0]))
    assert found == pytest.approx(0.5)


@pytest.mark.parametrize("settings", [[], ["clamm=/somewhere"]])
def test_unknown_checkouts_are_refused(script, settings, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["compare.py", "out.json", *settings])
    with pytest.raises(SystemExit, match="NAME one of weno, clam, dsmil"):
        script("compare").main()
