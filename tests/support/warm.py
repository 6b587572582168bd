"""Processes of commands without the seconds that their imports take: forked from one that has imported everything.

Each is what `python -m MODULE ARGUMENTS` starts, a process with its own folder, environment, output, exit code and
death; only its imports were made before. So are the processes that a command starts in its turn, ranks, points of a
sweep and steps of a chain: their `sys.executable` is `warm_python.py`.
"""

import contextlib
import functools
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support import warm_python

ROOT = Path(__file__).resolve().parents[2]


class WarmProcess:
    """As much of `subprocess.Popen` as the tests use."""

    def __init__(self, connection, stdout):
        self.stdout, self.returncode = stdout, None
        self._connection = connection
        self.pid = int(connection.recv(warm_python.MESSAGE))

    def poll(self):
        if self.returncode is None and select.select([self._connection], [], [], 0)[0]:
            self.returncode = int(self._connection.recv(warm_python.MESSAGE))
        return self.returncode

    def wait(self, timeout=None):
        if self.returncode is None:
            select.select([self._connection], [], [], timeout)
        if self.poll() is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
        return self.returncode

    def terminate(self):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)

    def kill(self):
        os.killpg(self.pid, signal.SIGKILL)

    def communicate(self, timeout=None):
        return self.stdout.read(), self.wait(timeout)


def start_warm(words, cwd, environment, stdout, stderr, pipe=None):
    """Start `python WORDS` in a session of its own.

    Args:
        words: `-m MODULE ARGUMENTS`, or a file and its arguments.
        cwd, environment: of the process.
        stdout, stderr: descriptors of its output.
        pipe: the end to read from, where these are a pipe.
    """
    with open(os.devnull) as nothing:
        descriptors = [nothing.fileno(), stdout, stderr]
        return WarmProcess(warm_python.ask(server(), words, str(cwd), dict(environment), descriptors), pipe)


given = None
"""Folder of a server that another process has started, for the workers of pytest."""


@functools.cache
def server():
    """Folder of the process that imports and forks; it ends when the one that started it does."""
    if given is not None:
        return given
    folder = Path(tempfile.mkdtemp(prefix="warm"))
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(folder / warm_python.SOCKET))
    listener.listen(64)
    python = folder / "python"
    python.write_text(f"#!{sys.executable} -IS\n" + Path(warm_python.__file__).read_text())
    python.chmod(0o755)
    (folder / warm_python.PATH).write_text(str(ROOT))
    subprocess.Popen(
        [sys.executable, "-m", "tests.support.warm_server", str(listener.fileno()), str(python)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"},
        pass_fds=[listener.fileno()],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    listener.close()
    return str(folder)
