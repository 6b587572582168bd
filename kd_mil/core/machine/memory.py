"""How much memory a machine, or the container that a process runs in, has left."""

import os
from pathlib import Path

UNKNOWN = 16 * 1024**3
"""Bytes assumed where the system does not say."""


def free_bytes(root: Path = Path("/")) -> int:
    """Bytes that can be taken without swapping, within the limits of a container; `UNKNOWN` but on Linux.

    Args:
        root: of the file system.
    """
    free = [_available(root / "proc/meminfo")]
    limit, used = (_number(root / "sys/fs/cgroup" / name) for name in ("memory.max", "memory.current"))
    if limit is not None and used is not None:
        free.append(max(0, limit - used))
    return min(free)


def process_share() -> int:
    """Processes of one job that share this machine, as far as their environment says."""
    for name in ("LOCAL_WORLD_SIZE", "SLURM_NTASKS_PER_NODE", "WORLD_SIZE"):
        if os.environ.get(name, "").isdecimal():
            return max(1, int(os.environ[name]))
    return 1


def _available(meminfo: Path) -> int:
    try:
        lines = meminfo.read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return UNKNOWN


def _number(path: Path) -> int | None:
    """The number in a file; None for `max`, or where there is none."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
