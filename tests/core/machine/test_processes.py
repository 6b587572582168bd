"""How many cores a process may use, and how many processes read tiles where nobody says it."""

import os

import pytest

from kd_mil.core.machine import processes
from kd_mil.core.machine.processes import MOST_READERS, is_dead, process_space, reading_processes, usable_cores


@pytest.fixture
def cores(monkeypatch):
    def have(count):
        monkeypatch.setattr(processes.os, "sched_getaffinity", lambda _: set(range(count)), raising=False)

    return have


@pytest.mark.parametrize(
    ("quota", "usable"),
    [(None, 12), ("max 100000", 12), ("400000 100000", 4), ("50000 100000", 1), ("9900000 100000", 12), ("broken", 12)],
)
def test_cores_are_those_of_the_scheduler_and_the_container(cores, tmp_path, quota, usable):
    cores(12)
    if quota is not None:
        (tmp_path / "cpu.max").write_text(f"{quota}\n")
    assert usable_cores(tmp_path / "cpu.max") == usable


@pytest.mark.parametrize(
    ("count", "device", "sharing", "readers"),
    [
        (12, "cuda", 1, 11),
        (12, "cuda", 4, 2),
        (64, "cuda", 1, MOST_READERS),
        (64, "cuda", 8, 7),
        (12, "cpu", 1, 1),
        (1, "cpu", 1, 0),
        (1, "cuda", 2, 0),
    ],
)
def test_a_gpu_gets_the_cores_but_one_and_a_cpu_one_reader(monkeypatch, count, device, sharing, readers):
    monkeypatch.setattr(processes, "usable_cores", lambda: count)
    assert reading_processes(device, sharing) == readers


def test_only_what_is_known_to_be_gone_is_dead():
    assert not is_dead(process_space(), os.getpid())
    assert not is_dead("another machine", 2**22 + 1)
    assert is_dead(process_space(), 2**22 + 1)  # above the largest id that Linux gives
    assert not any(is_dead(process_space(), pid) for pid in (0, -1, None, "7"))
