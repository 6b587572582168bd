"""Preemption and Ctrl-C: stop when told to, so that the same command resumes from the last finished epoch."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.environments import LightningEnvironment

STOPPED = 75
"""Exit code of a run that was stopped and can resume (EX_TEMPFAIL); after Ctrl-C it is 130, as shells expect."""
GRACE_SECONDS = 20.0


class StopOnSignal(Callback):
    """Exit on Ctrl-C and SIGTERM, and on SLURM's SIGUSR1 after putting the job back into the queue.

    Nothing is saved at this moment: a checkpoint inside an epoch would not resume exactly, and the one of the last
    finished epoch is already there. At most one epoch is repeated.

    Lightning's own handlers wait for the other ranks in the middle of whatever they do; they are replaced whenever a
    loop starts.

    Args:
        checkpoint: from where the run will resume.
        note: notes in the record of the run that it was interrupted.
    """

    def __init__(self, checkpoint: Path, note: Callable[[], None]) -> None:
        self.checkpoint, self.note, self.process = checkpoint, note, os.getpid()
        self.trainer: Trainer | None = None
        self._listen()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.trainer = trainer

    def on_train_start(self, *args: Any) -> None:
        self._listen()

    def on_validation_start(self, *args: Any) -> None:
        self._listen()

    def on_test_start(self, *args: Any) -> None:
        self._listen()

    def _listen(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # signals are the main thread's: a run inside another program leaves them alone
        requeues = [signal.SIGUSR1] if "SLURM_JOB_ID" in os.environ else []
        for signum in (signal.SIGINT, signal.SIGTERM, *requeues):
            signal.signal(signum, self._stop)

    def _stop(self, signum: int, frame: FrameType | None) -> None:
        code = 128 + signum if signum == signal.SIGINT else STOPPED
        if os.getpid() != self.process:  # a worker forked by this process
            os._exit(code)
        signal.signal(signum, signal.SIG_IGN)
        leads = self.trainer is None or self.trainer.is_global_zero
        if leads:
            if signum == signal.SIGUSR1:
                requeue()
            place = "from its last finished epoch" if self.checkpoint.exists() else "from the start"
            name = "Ctrl-C" if signum == signal.SIGINT else signal.Signals(signum).name
            print(f"stopped by {name}: nothing lost, the same command resumes {place}", file=sys.stderr)
            self._note()
        strategy = None if self.trainer is None else self.trainer.strategy
        for child in getattr(getattr(strategy, "launcher", None), "procs", []):
            child.send_signal(signal.SIGTERM)
        overdue = threading.Timer(GRACE_SECONDS, os._exit, [code])
        overdue.daemon = True
        overdue.start()
        # A rank that Lightning started must seem to have ended well, or it kills the one that reports.
        follows = not leads and isinstance(getattr(strategy, "cluster_environment", None), LightningEnvironment)
        raise SystemExit(0 if follows else code)

    def _note(self) -> None:
        try:
            self.note()
        except OSError as error:  # a full disk must not keep the run from ending
            print(f"run.json still says running: {error}", file=sys.stderr)


def requeue() -> None:
    """Put the present SLURM job back into the queue."""
    job = os.environ["SLURM_JOB_ID"]
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    try:
        subprocess.run(["scontrol", "requeue", job], check=True, timeout=GRACE_SECONDS)
    except (OSError, subprocess.SubprocessError) as error:
        print(f"SLURM did not take job {job} back: {error}", file=sys.stderr)
