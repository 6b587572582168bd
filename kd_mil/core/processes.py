"""Which process on which machine: what tells the living from the dead where several share a folder."""

import functools
import os
import socket
from pathlib import Path
from typing import Any

from kd_mil.core.hashing import digest


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
