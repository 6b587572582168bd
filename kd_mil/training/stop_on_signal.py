"""Preemption: stop when told to, so that the same command goes on from the last finished epoch."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.environments import LightningEnvironment

STOPPED = 75
"""Exit code of a run that was stopped and can go on (EX_TEMPFAIL)."""
GRACE_SECONDS = 20.0


class StopOnSignal(Callback):
    """Exit with `STOPPED` on SIGTERM, and on SLURM's SIGUSR1 after putting the job back into the queue.

    Nothing is saved at this moment: a checkpoint inside an epoch would not resume exactly, and the one of the last
    finished epoch is already there. At most one epoch is repeated.

    Lightning's own handler waits for the other ranks in the middle of whatever they do; it is replaced whenever a loop
    starts.

    Args:
        checkpoint: from where the run will go on.
    """

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint, self.process = checkpoint, os.getpid()
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
        for signum in (signal.SIGTERM, *([signal.SIGUSR1] if "SLURM_JOB_ID" in os.environ else [])):
            signal.signal(signum, self._stop)

    def _stop(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self.process:  # a worker forked by this process
            os._exit(STOPPED)
        signal.signal(signum, signal.SIG_IGN)
        leads = self.trainer is None or self.trainer.is_global_zero
        if leads:
            if signum == signal.SIGUSR1:
                requeue()
            place = "from its last finished epoch" if self.checkpoint.exists() else "from the start"
            print(f"stopped by {signal.Signals(signum).name}: the same command goes on {place}", file=sys.stderr)
        strategy = None if self.trainer is None else self.trainer.strategy
        for child in getattr(getattr(strategy, "launcher", None), "procs", []):
            child.send_signal(signal.SIGTERM)
        overdue = threading.Timer(GRACE_SECONDS, os._exit, [STOPPED])
        overdue.daemon = True
        overdue.start()
        # A rank that Lightning started must seem to have ended well, or it kills the one that reports.
        follows = not leads and isinstance(getattr(strategy, "cluster_environment", None), LightningEnvironment)
        raise SystemExit(0 if follows else STOPPED)


def requeue() -> None:
    """Put the present SLURM job back into the queue."""
    job = os.environ["SLURM_JOB_ID"]
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    try:
        subprocess.run(["scontrol", "requeue", job], check=True, timeout=GRACE_SECONDS)
    except (OSError, subprocess.SubprocessError) as error:
        print(f"SLURM did not take job {job} back: {error}", file=sys.stderr)
