"""Ranks of a training, each a process of its own, forked from one that has imported PyTorch and Lightning."""

import os
import pickle
import sys
from datetime import timedelta

import torch
import torch.distributed as dist

from tests.support.command import free_port
from tests.support.warm import start_warm


def start_ranks(target, *arguments, ranks=2):
    """Start `target(rank, port, *arguments)` for each rank; they meet at the port."""
    port = free_port()
    return [_start(target, (rank, port, *arguments)) for rank in range(ranks)]


def _start(target, arguments):
    call = pickle.dumps((target, arguments)).hex()
    return start_warm(["-m", "tests.support.ranks", call], os.getcwd(), os.environ, 1, 2)


class WarmProcess:
    """As much of `multiprocessing.Process` as the benchmarks use."""

    def __init__(self, target, args):
        self._call, self._process = (target, args), None

    def start(self):
        self._process = _start(*self._call)

    def join(self):
        self._process.wait()


def results_of(workers, folder):
    """What the ranks left in `rank0.pt`, `rank1.pt`, ..., once all have ended well."""
    for worker in workers:
        assert worker.wait(timeout=240) == 0
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(len(workers))]


def together(work, folder, *arguments, ranks=2):
    """What `work(rank, *arguments)` returns in each of some processes of one gloo group."""
    return results_of(start_ranks(_join, ranks, str(folder), work, *arguments, ranks=ranks), folder)


def _join(rank, port, ranks, folder, work, *arguments):
    torch.set_num_threads(1)
    options = {"timeout": timedelta(seconds=60), "rank": rank, "world_size": ranks}
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", **options)
    torch.save(work(rank, *arguments), f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    target, arguments = pickle.loads(bytes.fromhex(sys.argv[1]))
    target(*arguments)
