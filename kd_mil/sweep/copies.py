"""The same command in further processes of this machine, one for each GPU beside the one that this process has."""

import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from kd_mil.core.checks import at_least
from kd_mil.core.errors import UserError
from kd_mil.core.machine.environment import RANK_VARIABLES, environment
from kd_mil.core.machine.processes import usable_cores
from kd_mil.sweep.processes import in_own_group, last_words, shares, stopping, visible_gpus


class Copy(NamedTuple):
    """A process at work."""

    process: subprocess.Popen
    log: IO[bytes]


def slots_of(gpus: int, device: str) -> list[dict[str, str]]:
    """Environment of each of `gpus` processes: a GPU and its part of the cores; with `device=cpu` the cores alone.

    Raises:
        UserError: fewer GPUs than processes, or a device that says which.
    """
    at_least("gpus", gpus, 1)
    if device not in ("cuda", "cpu"):
        raise UserError(f"gpus={gpus} device={device}: give device=cuda, each process gets its own")
    found = visible_gpus() if device == "cuda" else []
    if device == "cuda" and len(found) < gpus:
        raise UserError(f"gpus={gpus}: PyTorch finds {len(found)}; device=cpu lets as many processes share the cores")
    return shares(gpus, found[:gpus], max(1, usable_cores() // gpus))


@contextmanager
def copies(command: Sequence[str], slots: Sequence[dict[str, str]], logs: Path) -> Iterator[None]:
    """Run a command in one process for each slot while the context lasts, and wait for them in its end.

    They are stopped when this process is. One that fails is a warning with its last words: who shares its work does it.

    Args:
        command: words of `python -m`.
        slots: environment of each process.
        logs: folder for what they print; removed with the files of those that went well.
    """
    running: dict[int, Copy] = {}
    logs.mkdir(parents=True, exist_ok=True)
    with stopping(running):
        for number, slot in enumerate(slots, start=1):
            log = (logs / f"process_{number}.log").open("wb")
            running[number] = Copy(start(command, slot, log), log)
        yield
        for number, copy in running.items():
            path, code = Path(copy.log.name), copy.process.wait()
            if code != 0:
                warnings.warn(f"process {number} ended early: {last_words(path, code)} ({path})", stacklevel=3)
            else:
                path.unlink(missing_ok=True)
    if not any(logs.iterdir()):
        logs.rmdir()


def start(command: Sequence[str], slot: dict[str, str], log: IO[bytes]) -> subprocess.Popen:
    """Start `python -m command` in a process group of its own, which does not outlive this process on Linux."""
    return subprocess.Popen(
        [sys.executable, "-m", *command],
        env=environment(slot, without=RANK_VARIABLES),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        preexec_fn=in_own_group,  # noqa: PLW1509  this process has no other threads at work
    )
