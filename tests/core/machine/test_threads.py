"""The number of CPU threads belongs to a run."""

import os

import pytest
import torch

from kd_mil.core.errors import UserError
from kd_mil.core.machine.threads import VARIABLE, use_threads, usual_threads


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    monkeypatch.setenv(VARIABLE, "1")
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("chosen", "earlier", "expected", "said"),
    [(None, None, 1, False), (2, None, 2, False), (None, 2, 2, True), (2, 2, 2, False), (None, 1, 1, False)],
)
def test_an_interrupted_run_keeps_its_threads_where_none_are_asked_for(chosen, earlier, expected, said, capsys):
    use_threads(chosen, earlier)
    assert torch.get_num_threads() == expected
    assert os.environ[VARIABLE] == str(expected)
    assert ("it resumes with 2" in capsys.readouterr().out) == said


def test_less_than_one_is_refused():
    with pytest.raises(UserError, match=r"trainer.threads=0: must be at least 1"):
        use_threads(0, None)


def test_usual_threads_are_those_that_pytorch_takes(monkeypatch, tmp_path):
    """Two processors of one physical core count once; numbers that only PyTorch can read are left to it."""
    assert usual_threads() == 1
    monkeypatch.setenv(VARIABLE, "many")
    assert usual_threads() == torch.get_num_threads()
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    for processor, siblings in (("cpu0", "0-1"), ("cpu1", "0-1"), ("cpu2", "2-3")):
        (tmp_path / processor / "topology").mkdir(parents=True)
        (tmp_path / processor / "topology" / "thread_siblings_list").write_text(siblings)
    assert usual_threads(tmp_path) == 2
    assert usual_threads(tmp_path / "nothing") == torch.get_num_threads()
