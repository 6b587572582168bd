"""What figures depend on: facts of the machine, clocks that take turns, and memory of a process of its own."""

import multiprocessing
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import torch

MEBIBYTE = 1024**2
LIBRARIES = ("benchmarks.aggregators", "torch._dynamo")
"""Imported before a fresh process starts, which then holds these and nothing else; optimisers import the second."""


class Clock(NamedTuple):
    """A moment, or the time between two; CPU time is that of all threads of the process."""

    wall: float
    """Seconds."""
    cpu: float
    """Seconds."""

    @classmethod
    def now(cls) -> "Clock":
        return cls(time.perf_counter(), time.process_time())

    def since(self, earlier: "Clock") -> "Clock":
        return Clock(self.wall - earlier.wall, self.cpu - earlier.cpu)


def timed(work: Callable[[], object]) -> Clock:
    """Time one call."""
    start = Clock.now()
    work()
    return Clock.now().since(start)


def timed_in_turn(works: Mapping[str, Callable[[], object]], repeats: int, seconds: float) -> dict[str, list[Clock]]:
    """Time several pieces of work one after the other, again and again: a busy moment hits them alike.

    Args:
        works: what to time, by name.
        repeats: largest number of rounds after the first, which warms up and does not count.
        seconds: no further round starts after this long; where that leaves none but the first, it counts after all.
    """
    start = time.perf_counter()
    samples: dict[str, list[Clock]] = {name: [] for name in works}
    for _ in range(1 + repeats):
        for name, work in works.items():
            samples[name].append(timed(work))
        if time.perf_counter() - start > seconds:
            break
    return {name: times[1:] or times for name, times in samples.items()}


def ratio(samples: Sequence[Clock], base: Sequence[Clock]) -> float:
    """Median over the rounds of wall time over that of `base` in the same round."""
    return statistics.median(clock.wall / other.wall for clock, other in zip(samples, base, strict=True))


def cpu_ratio(samples: Sequence[Clock], base: Sequence[Clock]) -> float:
    """As `ratio`, of CPU time: less disturbed where other programs run."""
    return statistics.median(clock.cpu / other.cpu for clock, other in zip(samples, base, strict=True))


def milliseconds(name: str, samples: Sequence[Clock]) -> dict[str, Any]:
    """Shortest and median wall time in ms, and every sample; keys start with `name`."""
    wall = [round(clock.wall * 1000, 4) for clock in samples]
    return {
        f"{name}_min_ms": min(wall),
        f"{name}_median_ms": round(statistics.median(wall), 3),
        f"{name}_samples_ms": wall,
        f"{name}_samples_cpu_ms": [round(clock.cpu * 1000, 3) for clock in samples],
    }


def peak_memory_mib() -> float:
    """Largest resident memory of this process so far, in MiB; library pages that it never touched are not in it.

    On Linux from /proc: `getrusage` also counts the memory of the program that a process was before it started.
    """
    status = Path("/proc/self/status")
    if status.exists():
        peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(peak.split()[1]) / 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MEBIBYTE


def in_fresh_process(work: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """Result of `work(*arguments)` in a new process with as many threads; `error` if it dies, as out of memory."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(LIBRARIES))
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_result, args=(sender, torch.get_num_threads(), work, *arguments))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        process.join()
        return {"error": f"the process ended with exit code {process.exitcode}"}
    finally:
        process.join()


def _send_result(sender: Connection, threads: int, work: Callable[..., dict[str, Any]], *arguments: Any) -> None:
    torch.set_num_threads(threads)
    sender.send(work(*arguments))


def load_average() -> list[float]:
    """Of the last 1, 5 and 15 minutes."""
    return [round(load, 2) for load in os.getloadavg()]


def machine_facts() -> dict[str, Any]:
    """Processor, cores, memory and load, so that figures can be judged later."""
    names = Path("/proc/cpuinfo")
    lines = names.read_text().splitlines() if names.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3, 1),
        "load_average": load_average(),
        "system": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
    }
