"""Commands in forked processes: no start-up to pay, and what kills one kills no other.

The parent imports the commands and never runs one, so every child starts as a fresh interpreter would.
"""

import importlib
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from kd_mil.data.features.files.index import NAME as INDEX
from tests.campaign.cases import Result

COMMANDS = ("extract", "predict", "segment", "export", "doctor", "run", "report", "frontier")
EXTRA_MEMORY = 6 * 1024**3
"""Bytes a command may take beyond what the parent has: a bomb ends here and not with the machine."""


def load_commands() -> None:
    """Import all commands with their jobs, before any runs. OpenMP of several threads hangs in forked processes."""
    torch.set_num_threads(1)
    for name in COMMANDS:
        importlib.import_module(f"kd_mil.{name}")
        importlib.import_module(f"kd_mil.jobs.{name}")


def start(
    command: str,
    folder: Path,
    settings: Sequence[str],
    log: str = "log",
    before: Callable[[], None] | None = None,
) -> int:
    """Start a command in `folder`; its output goes to `LOG.out` and `LOG.err` there. Returns the process id.

    `before` is called in the new process first.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        os.setsid()
        os.chdir(folder)
        for number, name in ((1, f"{log}.out"), (2, f"{log}.err")):
            os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), number)
        if before is not None:
            before()
        code = _command(command, settings)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def run(command: str, folder: Path, settings: Sequence[str], watched: Path, limit: float = 120) -> Result:
    """Run a command to its end, or stop it after `limit` seconds; what changes in `watched` outside `out/` is noted."""
    before, begun = snapshot(watched, folder), time.monotonic()
    pid = start(command, folder, settings)
    code = wait(pid, limit)
    seconds = time.monotonic() - begun
    text = [(folder / f"log.{name}").read_text(errors="replace") for name in ("out", "err")]
    after = snapshot(watched, folder)
    outside = sorted(str(path) for path in {**before, **after} if before.get(path) != after.get(path))
    return Result(command, folder, code, *text, seconds, outside)


def wait(pid: int, limit: float) -> int:
    """Exit code of a process, -9 where it had to be killed."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return -9


def snapshot(watched: Path, folder: Path) -> dict[Path, tuple[int, int, int]]:
    """Kind, size and time of change of every file in `watched`.

    Left out are the output and the logs of the case, and the index that training keeps beside feature files.
    """
    found = {}
    for above, names, files in os.walk(watched):
        if Path(above) == folder:
            names[:] = [name for name in names if name != "out"]
            files = [name for name in files if not name.startswith("log.")]
        files = [name for name in files if name not in (INDEX, f"{INDEX}.lock")]
        for name in [*names, *files]:
            path = Path(above) / name
            status = path.lstat()
            is_folder = name in names
            found[path] = (status.st_mode, 0 if is_folder else status.st_size, 0 if is_folder else status.st_mtime_ns)
    return found


def _command(command: str, settings: Sequence[str]) -> int:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + EXTRA_MEMORY, resource.RLIM_INFINITY))
    os.environ.update(COLUMNS="1000", HYDRA_FULL_ERROR="0")
    module = importlib.import_module(f"kd_mil.{command}")
    sys.argv = [f"kd_mil.{command}", *settings]
    if command == "doctor":
        sys.argv[1:] = module.with_run_settings(sys.argv[1:])
    try:
        (module.start if command in ("predict", "report") else module.main)()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0
