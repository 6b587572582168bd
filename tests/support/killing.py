"""Kill a command again and again, at random moments, until it gets through."""

import os
import random
import signal
import threading
import time
from contextlib import suppress

from tests.support.warm import ROOT, start_warm


def start(*overrides, cwd, module="kd_mil.run", **environment):
    """The command in a process group of its own, its output in a pipe; its imports are made before."""
    output, theirs = os.pipe()
    variables = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"} | environment
    pipe = open(output, encoding="utf-8")  # noqa: SIM115  closed with the process
    process = start_warm(["-m", module, *overrides], cwd, variables, stdout=theirs, stderr=theirs, pipe=pipe)
    os.close(theirs)
    return process


def wait_for(process, beginning, times=1):
    """Lines up to the `times`-th that begins so, or to the end of the output."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        times -= line.startswith(beginning)
        if times <= 0:
            break
    return lines


def kill(process):
    """SIGKILL to the whole group, ranks and workers included; it may have ended just now."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.stdout.read()
    process.wait()


def run_and_kill(*overrides, cwd, kills, moments=(0, 1, 1, 2), seed=0):
    """Start the same command until it ends by itself, after `kills` violent deaths; how often it went on from a file.

    A life ends a moment after so many epochs, drawn from `moments`; 0: in the first seconds, before there is any.
    """
    rng, continued = random.Random(seed), 0
    for _ in range(kills):
        process = start(*overrides, cwd=cwd)
        epochs = rng.choice(moments)
        if epochs == 0:
            timer = threading.Timer(rng.uniform(0.3, 1.5), os.killpg, [process.pid, signal.SIGKILL])
            timer.start()
            lines = wait_for(process, "will not be printed")
            timer.cancel()
        else:
            lines = wait_for(process, "epoch ", times=epochs)
            time.sleep(rng.uniform(0, 0.4))
        continued += any("continuing" in line for line in lines)
        if process.poll() is None:
            kill(process)
    process = start(*overrides, cwd=cwd)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output[-3000:]
    return continued + ("continuing" in output)
