"""Many points on one machine: a few processes at a time, each with its share of GPUs and CPU threads."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import IO, NamedTuple, Protocol

from tqdm import tqdm

from kd_mil.core.checks import at_least
from kd_mil.core.errors import UserError
from kd_mil.core.machine.environment import RANK_VARIABLES, environment
from kd_mil.core.machine.gpus import cuda_available
from kd_mil.core.machine.threads import VARIABLE, usual_threads
from kd_mil.sweep.points import Point

LOG = "output.log"
"""In the directory of a point: what its process printed."""
MISTAKE, POLL_SECONDS, GRACE_SECONDS = 2, 0.1, 30.0


class Outcome(NamedTuple):
    """What became of a point."""

    point: Point
    status: str
    """`kept` (was finished before), `finished` or `failed`."""
    message: str = ""
    """Of a failed point: its last words."""


class AtWork(Protocol):
    """A process at work, and the file for what it prints."""

    @property
    def process(self) -> subprocess.Popen: ...

    @property
    def log(self) -> IO[bytes]: ...


class Worker(NamedTuple):
    """The process of a point."""

    point: Point
    slot: int
    attempt: int
    process: subprocess.Popen
    log: IO[bytes]


def shares(parallel: int, gpus: Sequence[str], threads: int) -> list[dict[str, str]]:
    """Environment of each of the processes that run at a time: consecutive GPUs, and so many threads.

    Where there are fewer GPUs than processes, they are given out in turn. A single process keeps all of them.
    """
    own = []
    each = max(1, len(gpus) // parallel)
    for slot in range(parallel):
        share = {VARIABLE: str(threads)}
        if gpus and parallel > 1:
            share["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[(slot * each + i) % len(gpus)] for i in range(each))
        own.append(share)
    return own


def threads_of_each(points: Sequence[Point], parallel: int, available: int) -> int:
    """CPU threads of every point: as many as those that have begun, so that `sweep.parallel` changes no result.

    Where none has, an equal part of what is available; `trainer.threads` of a point goes before.
    """
    readable = [point for point in points if not point.refusal]
    unsaid = [point for point in readable if not any(text.startswith("trainer.threads=") for text in point.overrides)]
    begun = Counter(record["threads"] for point in unsaid if (record := point.record).get("threads"))
    if len(begun) > 1:
        print(
            f"points of this sweep began with {' and '.join(map(str, sorted(begun)))} CPU threads, "
            "which differ in the last bits: trainer.threads=N makes them equal"
        )
    return begun.most_common(1)[0][0] if begun else equal_part(available, parallel)


def equal_part(available: int, parallel: int) -> int:
    """CPU threads of each of so many processes."""
    return max(1, available // parallel)


def visible_gpus() -> list[str]:
    """The GPUs this process may use, by the names that CUDA_VISIBLE_DEVICES knows."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not cuda_available():
        return []
    import torch

    return named.split(",") if named else [str(index) for index in range(torch.cuda.device_count())]


def run_points(
    points: Sequence[Point], parallel: int = 1, attempts: int = 2, threads: int | None = None
) -> list[Outcome]:
    """Run all points that are not finished, in order; a failure stops none of the others.

    When this process is told to stop, its points are, too, and resume from their last epoch next time.

    Args:
        points: to run.
        parallel: how many at a time.
        attempts: how often one that crashes is tried.
        threads: CPU threads of every point; None: as `threads_of_each` finds.

    Raises:
        UserError: `parallel` or `attempts` below 1, or two points in one directory.
    """
    check(points, parallel, attempts)
    outcomes = {i: outcome for i, point in enumerate(points) if (outcome := known_outcome(point)) is not None}
    threads = threads or threads_of_each(points, parallel, usual_threads())
    slots = shares(parallel, visible_gpus(), threads)
    waiting = deque((i, 1) for i in range(len(points)) if i not in outcomes)
    free, workers = list(range(parallel)), dict[int, Worker]()
    with stopping(workers), tqdm(total=len(points), initial=len(outcomes), unit="point", disable=None) as bar:
        for outcome in outcomes.values():
            tell(bar, outcome)
        while waiting or workers:
            while waiting and free:
                i, attempt = waiting.popleft()
                workers[i] = start(points[i], free.pop(0), attempt, slots)
            for i, worker in list(workers.items()):
                code = worker.process.poll()
                if code is None:
                    continue
                worker.log.close()
                del workers[i]
                free.append(worker.slot)
                if code not in (0, MISTAKE) and worker.attempt < attempts:
                    waiting.append((i, worker.attempt + 1))
                    continue
                outcomes[i] = judge(worker, code)
                tell(bar, outcomes[i])
                bar.update()
            time.sleep(POLL_SECONDS)
    return [outcomes[i] for i in range(len(points))]


def known_outcome(point: Point) -> Outcome | None:
    """Of a point that need not or must not run."""
    if point.refusal:
        return Outcome(point, "failed", point.refusal)
    if not point.finished:
        return None
    try:
        _ = point.score
    except UserError as error:  # its metrics.json is damaged
        return Outcome(point, "failed", str(error))
    return Outcome(point, "kept")


def check(points: Sequence[Point], parallel: int, attempts: int) -> None:
    """Refuse what cannot work."""
    for name, value in (("parallel", parallel), ("attempts", attempts)):
        at_least(f"sweep.{name}", value, 1)
    directories = [point.directory for point in points]
    for directory in directories:
        if directories.count(directory) > 1:
            raise UserError(
                f"two points of the sweep share {directory}: their overrides must differ in more than order"
            )


def start(point: Point, slot: int, attempt: int, slots: Sequence[dict[str, str]]) -> Worker:
    """Start a point in a process group of its own, which Ctrl-C reaches through us; its output goes to a file."""
    point.directory.mkdir(parents=True, exist_ok=True)
    log = open(point.directory / LOG, "wb" if attempt == 1 else "ab")  # noqa: SIM115  closed when the process ends
    own = environment(slots[slot], without=RANK_VARIABLES)
    process = subprocess.Popen(
        point.command,
        env=own,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        preexec_fn=in_own_group,  # noqa: PLW1509  this process has no other threads at work
    )
    return Worker(point, slot, attempt, process, log)


def in_own_group() -> None:
    """A group of its own, in the session and at the priority of the sweep; on Linux, it does not outlive the sweep."""
    os.setpgid(0, 0)
    if sys.platform == "linux":
        set_death_signal = 1
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGTERM)


def judge(worker: Worker, code: int) -> Outcome:
    """The outcome of a process that ended."""
    if code == 0 and worker.point.finished:
        return Outcome(worker.point, "finished")
    return Outcome(worker.point, "failed", last_words(worker.point.directory / LOG, code))


def last_words(log: Path, code: int) -> str:
    """The line that says why a process ended."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    return (errors or lines or [""])[-1].removeprefix("error: ")[:300] or f"exit code {code}"


def tell(bar: tqdm, outcome: Outcome) -> None:
    """One line for each point that is done."""
    name = outcome.point.directory.name
    if outcome.status == "failed":
        bar.write(f"failed    {name}: {outcome.message}")
    else:
        score = outcome.point.score
        bar.write(f"{outcome.status:9} {name}  {outcome.point.record.get('monitor')} {score}")


@contextlib.contextmanager
def stopping(workers: Mapping[int, AtWork]) -> Iterator[None]:
    """End the processes at work when this one is interrupted, asked to end, or fails."""

    def leave(signum: int, frame: FrameType | None) -> None:
        print("stopped by SIGTERM: nothing lost, the same command resumes", file=sys.stderr)
        raise SystemExit(128 + signum)

    earlier: Callable | int | None = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier or signal.SIG_DFL)
        for worker in workers.values():
            worker.process.terminate()
        for worker in workers.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.process.wait(GRACE_SECONDS)
            worker.process.kill()
            worker.log.close()
