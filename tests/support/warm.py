"""Processes of commands without the seconds that their imports take: forked from one that has imported everything.

Each is what `python -m MODULE ARGUMENTS` starts, a process with its own folder, environment, output, exit code and
death; only its imports were made before.
"""

import contextlib
import functools
import gc
import importlib
import json
import os
import pkgutil
import random
import runpy
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LATE = (
    *("torchvision", "timm", "sklearn.datasets", "sklearn.metrics", "scipy.stats", "skimage", "matplotlib.pyplot"),
    *("matplotlib.backends.backend_agg", "tensorboard", "torch.utils.tensorboard", "torch.distributed", "pyarrow"),
    *("pyarrow.parquet", "lightning.pytorch.strategies", "lightning.pytorch.callbacks", "lightning.pytorch.loggers"),
)
"""Imported when they are needed, by the package or by libraries."""
MESSAGE = 1 << 20


class WarmProcess:
    """As much of `subprocess.Popen` as the tests use."""

    def __init__(self, status, stdout):
        self.stdout, self.returncode = stdout, None
        self._status = open(status, "rb", buffering=0)  # noqa: SIM115  closed with the process
        self.pid = int(self._status.readline())

    def poll(self):
        if self.returncode is None and select.select([self._status], [], [], 0)[0]:
            self.returncode = int(self._status.readline())
        return self.returncode

    def wait(self, timeout=None):
        if self.returncode is None:
            select.select([self._status], [], [], timeout)
        if self.poll() is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
        return self.returncode

    def kill(self):
        os.killpg(self.pid, signal.SIGKILL)

    def communicate(self, timeout=None):
        return self.stdout.read(), self.wait(timeout)


def start_warm(module, arguments, cwd, environment, stdout, stderr, pipe=None):
    """Start `python -m module arguments` in a session of its own.

    Args:
        module, arguments, cwd, environment: of the process.
        stdout, stderr: descriptors of its output.
        pipe: the end to read from, where these are a pipe.
    """
    status, theirs = os.pipe()
    request = {"module": module, "arguments": arguments, "cwd": str(cwd), "environment": dict(environment)}
    socket.send_fds(server(), [json.dumps(request).encode()], [stdout, stderr, theirs])
    os.close(theirs)
    return WarmProcess(status, pipe)


@functools.cache
def server():
    """The connection to the process that imports and forks; it ends when this one does."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    subprocess.Popen(
        [sys.executable, "-m", "tests.support.warm", str(theirs.fileno())],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    theirs.close()
    return ours


def serve(connection):
    """Fork a process for each request until nobody can make any; comes back in each of these processes, too."""
    found = pkgutil.walk_packages([str(ROOT / "kd_mil")], "kd_mil.")
    for name in (*LATE, *(module.name for module in found if module.ispkg or module.name.count(".") > 1)):
        with contextlib.suppress(ModuleNotFoundError):  # of an extra that is not installed
            importlib.import_module(name)  # but not the commands, which are what is run
    gc.freeze()
    while True:
        message, descriptors, _, _ = socket.recv_fds(connection, MESSAGE, 3)
        if not message:
            return None
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if os.fork() == 0:
            connection.close()
            watch(*descriptors)
            return json.loads(message)
        for descriptor in descriptors:
            os.close(descriptor)


def watch(stdout, stderr, status):
    """Fork the process of a command, and write down its id and how it ends; comes back in that process alone."""
    child = os.fork()
    if child == 0:
        os.setsid()
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
        os.write(status, f"{os.getpid()}\n".encode())
        for descriptor in (stdout, stderr, status):
            os.close(descriptor)
        return
    for descriptor in (stdout, stderr):  # so that the end of its output is seen
        os.close(descriptor)
    _, code = os.waitpid(child, 0)
    os.write(status, f"{os.waitstatus_to_exitcode(code)}\n".encode())
    os._exit(0)


def become(request):
    """Take on folder, environment and command line, and run the command to its end."""
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    if "PYTHONUNBUFFERED" in os.environ:
        sys.stdout.reconfigure(write_through=True)
    sys.argv, sys.path[0] = [request["module"], *request["arguments"]], request["cwd"]
    random.seed()
    runpy.run_module(request["module"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    asked = serve(socket.socket(fileno=int(sys.argv[1])))
    if asked is not None:
        become(asked)
