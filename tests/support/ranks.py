"""Ranks of a training, each a process of its own, forked from one that has imported PyTorch and Lightning."""

from datetime import timedelta

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from tests.support.command import free_port

IMPORTED = [
    *("lightning.pytorch.strategies", "lightning.pytorch.callbacks", "torchmetrics", "torchvision", "sklearn.datasets"),
    *("kd_mil.methods.weno.weno", "kd_mil.methods.ifkd.ifkd", "kd_mil.methods.resolution.resolution"),
]


def start_ranks(target, *arguments, ranks=2):
    """Start `target(rank, port, *arguments)` for each rank; they meet at the port."""
    context = mp.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    port = free_port()
    workers = [context.Process(target=target, args=(rank, port, *arguments)) for rank in range(ranks)]
    for worker in workers:
        worker.start()
    return workers


def results_of(workers, folder):
    """What the ranks left in `rank0.pt`, `rank1.pt`, ..., once all have ended well."""
    for worker in workers:
        worker.join(timeout=240)
        assert worker.exitcode == 0
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
