"""The number of CPU threads belongs to a run."""

import os

import pytest
import torch

from kd_mil.core.errors import UserError
from kd_mil.core.threads import VARIABLE, use_threads


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
