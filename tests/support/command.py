"""Real commands in a process of their own, as a user types them."""

import os
import socket
import subprocess
import sys
import tempfile

from tests.support.warm import ROOT, start_warm

AT_IMPORT = {"PYTHONPATH"}
"""Variables that decide what is imported."""


def kd_mil(command, *overrides, cwd, check=True, **variables):
    """Run a command to its end; its imports are made before, unless a variable changes them."""
    return python("-m", f"kd_mil.{command}", *overrides, cwd=cwd, check=check, **variables)


def python(*words, cwd, check=True, **variables):
    """Run a module (`-m NAME`) or a file of Python likewise."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | variables
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        files = {"stdout": stdout.fileno(), "stderr": stderr.fileno()}
        if AT_IMPORT & set(variables):
            process = subprocess.Popen([sys.executable, *words], cwd=cwd, env=environment, **files)
        else:
            process = start_warm(words, cwd, environment, **files)
        try:
            process.wait(timeout=300)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        outputs = []
        for file in (stdout, stderr):
            file.seek(0)
            outputs.append(file.read().decode())
    result = subprocess.CompletedProcess(words, process.returncode, *outputs)
    if check:
        assert result.returncode == 0, f"{words}\n{result.stderr[-3000:]}"
    return result


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
