"""Which epoch lies in which phase, and how many epochs a run has."""

from types import SimpleNamespace

import pytest

from kd_mil.core.errors import UserError
from kd_mil.jobs.run import shorten_phases
from kd_mil.methods.base.phases import UNDIVIDED, Phase, Phases
from tests.support.methods import make_d2l, make_mil, make_rnn_mil
from tests.support.tiny_images import tiny_ifkd

TWO_ROUNDS = Phases(Phase("teacher", 2, "method.t"), *[Phase("student", 3, "method.s")] * 2)
OPEN = Phases(Phase("tile", 4, "method.t"), Phase("rnn"))


def test_every_epoch_lies_in_a_phase():
    assert TWO_ROUNDS.names == ["teacher", "student", "student"]
    assert [TWO_ROUNDS.name(epoch) for epoch in range(9)] == ["teacher"] * 2 + ["student"] * 7
    assert [TWO_ROUNDS.round(epoch) for epoch in range(8)] == [0, 0, 0, 0, 0, 1, 1, 1]
    assert [epoch for epoch in range(9) if TWO_ROUNDS.begins(epoch)] == [2, 5]
    assert (TWO_ROUNDS.total, OPEN.total, UNDIVIDED.total) == (8, None, None)
    assert [phases.undivided for phases in (TWO_ROUNDS, OPEN, UNDIVIDED, Phases(Phase("teacher", 5)))] == [
        *(False, False),
        *(True, False),
    ]


def test_phases_without_epochs_are_left_out():
    phases = Phases(Phase("teacher", 0), Phase("distil", 5), Phase("finetune", 0))
    assert (phases.names, phases.starts, phases.total) == (["distil"], [0], 5)
    with pytest.raises(ValueError, match="need epochs"):
        Phases(Phase("teacher", 0))
    with pytest.raises(ValueError, match="only the last may be without an end"):
        Phases(Phase("teacher"), Phase("student"))


@pytest.mark.parametrize(
    ("phases", "run", "progress"),
    [
        (UNDIVIDED, 4, [0, 1 / 4, 2 / 4, 3 / 4]),
        (OPEN, 6, [0, 1 / 4, 2 / 4, 3 / 4, 0, 1 / 2]),
        (TWO_ROUNDS, 8, [0, 1 / 2, 0, 1 / 3, 2 / 3, 0, 1 / 3, 2 / 3]),
        (TWO_ROUNDS, 7, [0, 1 / 2, 0, 1 / 3, 2 / 3, 0, 1 / 2]),  # ends within its last phase
    ],
)
def test_progress_within_a_phase(phases, run, progress):
    assert [phases.progress(epoch, run) for epoch in range(run)] == pytest.approx(progress)


@pytest.mark.parametrize("asked", [None, -1])
def test_a_run_takes_all_phases_unless_told_otherwise(asked):
    assert TWO_ROUNDS.run_epochs(asked) == 8
    assert OPEN.run_epochs(asked) == asked
    assert UNDIVIDED.run_epochs(asked) == asked


def test_a_run_may_end_within_its_last_phase_only():
    assert [TWO_ROUNDS.run_epochs(asked) for asked in (6, 8)] == [6, 8]
    assert OPEN.run_epochs(99) == 99
    assert UNDIVIDED.run_epochs(1) == 1
    for phases, asked, message in (
        (TWO_ROUNDS, 5, "trainer.max_epochs=5 ends before the student phase begins: it needs more than 5, or other "),
        (TWO_ROUNDS, 9, "trainer.max_epochs=9, but the phases take 8: set method.t, method.s and leave"),
        (OPEN, 4, "trainer.max_epochs=4 ends before the rnn phase begins: it needs more than 4, or other method.t"),
    ):
        with pytest.raises(UserError, match=message):
            phases.run_epochs(asked)


@pytest.mark.parametrize(
    ("make", "asked", "epochs"),
    [
        (make_mil, 60, 60),
        (make_rnn_mil, -1, 2 * 7),
        (lambda: make_d2l(rounds=2), -1, 3 * 7),
        (lambda: make_d2l(student_epochs=0), -1, 7),
        (tiny_ifkd, -1, 3 * 7),
    ],
    ids=["undivided", "rnn_mil", "two rounds", "teacher alone", "ifkd"],
)
def test_a_debugging_run_shortens_each_phase_and_leaves_other_methods_their_epochs(make, asked, epochs):
    method, config = make(), SimpleNamespace(phase_epochs=7, trainer=SimpleNamespace(max_epochs=60))
    shorten_phases(config, method)
    assert config.trainer.max_epochs == asked
    assert method.phases.run_epochs(asked) == epochs


def test_a_debugging_run_of_ifkd_goes_past_its_first_switch():
    method = tiny_ifkd(switch={"first": 30, "period": 20})
    method.shorten_phases(2)
    assert (method.phases.starts, method.phases.total) == ([0, 2], 6)
    assert [epoch for epoch in range(1, 5) if method.switch.due(epoch)] == [2, 4]
