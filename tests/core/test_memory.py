"""Free memory as the kernel and a container's limits state it."""

import pytest

from kd_mil.core.machine.memory import UNKNOWN, free_bytes, process_share


def write(root, **files):
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_of_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(("limit", "free"), [("max", 2048), ("5000", 1000), ("3000", 0)])
def test_the_smaller_of_machine_and_container(limit, free, tmp_path):
    write(tmp_path, proc__meminfo="MemTotal: 9 kB\nMemAvailable:       2 kB\n")
    write(tmp_path, sys__fs__cgroup__memory_of_max=f"{limit}\n", sys__fs__cgroup__memory_of_current="4000\n")
    assert free_bytes(tmp_path) == free


def test_systems_that_do_not_say(tmp_path):
    assert free_bytes(tmp_path) == UNKNOWN
    assert free_bytes() > 0


def test_processes_share_a_machine(monkeypatch):
    for name in ("LOCAL_WORLD_SIZE", "SLURM_NTASKS_PER_NODE", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert process_share() == 1
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert process_share() == 4
