"""The process that imports everything once, and forks the processes that tests ask for."""

import ast
import atexit
import contextlib
import gc
import importlib
import os
import pkgutil
import random
import runpy
import select
import shutil
import signal
import socket
import sys
import threading

import torch

from tests.support.parsed import parse_all, remember_parsed
from tests.support.warm import ROOT
from tests.support.warm_python import MESSAGE

LATE = (
    *("torchvision", "timm", "sklearn.datasets", "sklearn.metrics", "scipy.stats", "skimage", "matplotlib.pyplot"),
    *("matplotlib.backends.backend_agg", "tensorboard", "torch.utils.tensorboard", "torch.distributed", "pyarrow"),
    *("pyarrow.parquet", "lightning.pytorch.strategies", "lightning.pytorch.callbacks", "lightning.pytorch.loggers"),
)
"""Imported when they are needed, by the package or by libraries."""


def import_everything():
    """But not the commands, which are what is run."""
    found = pkgutil.walk_packages([str(ROOT / "kd_mil")], "kd_mil.")
    for name in (*LATE, *(module.name for module in found if module.ispkg or module.name.count(".") > 1)):
        with contextlib.suppress(ModuleNotFoundError):  # of an extra that is not installed
            importlib.import_module(name)
    remember_parsed()
    parse_all()
    gc.collect()
    gc.freeze()


def serve(listener):
    """Fork a process for each request until the one that started this has ended; comes back in each of them, too."""
    while True:
        asked, _, _ = select.select([listener, sys.stdin], [], [])
        if listener not in asked:
            return None
        connection, _ = listener.accept()
        message, descriptors, _, _ = socket.recv_fds(connection, MESSAGE, 3)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if os.fork() == 0:
            listener.close()
            watch(connection, descriptors)
            return ast.literal_eval(message.decode("utf-8", "surrogateescape"))
        connection.close()
        for descriptor in descriptors:
            os.close(descriptor)


def watch(connection, descriptors):
    """Fork the process of a command, and say its id and how it ends; comes back in that process alone.

    It does not outlive the process that asked for it.
    """
    child = os.fork()
    if child == 0:
        os.setsid()
        try:
            connection.send(str(os.getpid()).encode())
        except OSError:  # killed meanwhile
            os._exit(0)
        connection.close()
        for place, descriptor in enumerate(descriptors):
            os.dup2(descriptor, place)
            os.close(descriptor)
        return
    for descriptor in descriptors:  # so that the end of its output is seen
        os.close(descriptor)
    ended = os.pidfd_open(child)
    if ended not in select.select([ended, connection], [], [])[0]:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
    _, code = os.waitpid(child, 0)
    with contextlib.suppress(OSError):
        connection.send(str(os.waitstatus_to_exitcode(code)).encode())
    os._exit(0)


def become(request, python):
    """Take on folder, environment and command line, run to the end, and leave without taking all imports down."""
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    if "PYTHONUNBUFFERED" in os.environ:
        sys.stdout.reconfigure(write_through=True)
    sys.executable = python
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))  # as PyTorch does when it is imported
    random.seed()
    try:
        run(request["words"], request["cwd"])
        code = 0
    except SystemExit as left:
        code = code_of(left)
    except Exception:
        sys.excepthook(*sys.exc_info())
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def run(words, cwd):
    """What Python does with these words."""
    if words[0] == "-m":
        sys.argv, sys.path[0] = words[1:], cwd
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = words, os.path.dirname(os.path.abspath(words[0]))
        runpy.run_path(words[0], run_name="__main__")


def code_of(left):
    """The exit code that Python makes of what a program leaves with."""
    if left.code is None or isinstance(left.code, int):
        return int(left.code or 0) & 0xFF
    print(left.code, file=sys.stderr)
    return 1


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    import_everything()
    asked = serve(socket.socket(fileno=int(sys.argv[1])))
    if asked is None:
        shutil.rmtree(os.path.dirname(sys.argv[2]))
    else:
        become(asked, sys.argv[2])
