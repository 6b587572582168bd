"""Which process on which machine, which of them live where several share a folder, and how many cores one may use."""

import functools
import os
import socket
from pathlib import Path
from typing import Any

from kd_mil.core.hashing import digest

MOST_READERS = 16
"""Processes that read tiles for one GPU; more than keep it busy cost memory."""


@functools.cache
def process_space() -> str:
    """12 hex digits for the set of processes whose ids this one can look up.

    Containers may share a host name, and a boot, but not process ids: on Linux it is the boot and the namespace of the
    ids (https://man7.org/linux/man-pages/man7/pid_namespaces.7.html) that count, elsewhere the host name.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return digest([boot, os.readlink("/proc/self/ns/pid")])
    except OSError:
        return digest([socket.gethostname()])


def is_dead(space: Any, pid: Any) -> bool:
    """Whether a process has certainly ended; False where it lives, and where nobody here can know."""
    if space != process_space() or not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):  # it belongs to somebody else, or is no process id
        return False
    return False


def usable_cores(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Cores that this process may use: what its scheduler (SLURM, taskset) left it, and its container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        allowed, period = quota.read_text().split()
        return max(1, min(cores, round(int(allowed) / int(period))))
    except (OSError, ValueError):  # no container, or none with a limit ("max")
        return cores


def reading_processes(device: str, sharing: int = 1) -> int:
    """How many processes read tiles where nobody says it: of a GPU, the cores but one; of a CPU, which encodes, one.

    Args:
        device: type of the device that encodes: `cuda`, `cpu`.
        sharing: processes of this machine that share its cores.
    """
    cores = usable_cores() // sharing
    return min(1 if device == "cpu" else MOST_READERS, max(0, cores - 1))
