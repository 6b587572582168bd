"""One process at a time in the folder of a run."""

import os
import subprocess
import sys
import textwrap

import pytest

from kd_mil.core import records
from kd_mil.core.errors import UserError
from kd_mil.core.records import RunRecord

CONFIG = {"ckpt_path": None}


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(records, "LOCK_PATIENCE", 0.3)


def test_a_second_process_is_kept_out_with_one_line(tmp_path):
    first, second = RunRecord(tmp_path / "run", CONFIG), RunRecord(tmp_path / "run", CONFIG)
    first.lock()
    with pytest.raises(UserError, match=r"another process runs in .*run: wait for it, or end it"):
        second.lock()
    RunRecord(tmp_path / "other", CONFIG).lock()


def locked_elsewhere(directory, then, before=""):
    """Output of another process that locks the folder and goes on."""
    program = textwrap.dedent(
        f"""
        import os, sys
        {before}
        from pathlib import Path
        from kd_mil.core import records
        records.LOCK_PATIENCE = 0.3
        holder = records.RunRecord(Path({str(directory)!r}), {CONFIG!r})
        holder.lock()
        {then}
        """
    )
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)


def test_the_lock_of_a_dead_process_does_not_block(tmp_path):
    killed = locked_elsewhere(tmp_path, "os.kill(os.getpid(), 9)")
    assert killed.returncode == -9
    assert (tmp_path / ".lock").exists()
    RunRecord(tmp_path, CONFIG).lock()


def test_systems_without_fcntl_have_a_lock_too(tmp_path):
    """Windows: a process that cannot import it keeps the second one out all the same."""
    again = f"records.RunRecord(Path({str(tmp_path)!r}), {CONFIG!r}).lock()"
    result = locked_elsewhere(tmp_path, again, before="sys.modules['fcntl'] = None")
    assert "another process runs in" in result.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="loader workers are forked on POSIX alone")
def test_a_forked_worker_that_ends_leaves_the_lock(tmp_path):
    holder = RunRecord(tmp_path, CONFIG)
    holder.lock()
    if (child := os.fork()) == 0:
        del holder
        os._exit(0)
    os.waitpid(child, 0)
    with pytest.raises(UserError, match="another process runs"):
        RunRecord(tmp_path, CONFIG).lock()
