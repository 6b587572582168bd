"""Two gloo processes against one: gradients, metrics and buffers."""

import json
import os
import socket
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp

from kd_mil.methods.weno import WENO
from kd_mil.models.mining import HardPositiveMining
from tests.test_commands import kd_mil
from tests.tiny import TinyData, fit, tiny_abmil, tiny_head, tiny_parts, tiny_splits

pytestmark = pytest.mark.slow


def make_weno(norm=False, **switches):
    torch.manual_seed(0)
    hpm = HardPositiveMining(mode="threshold", threshold=0.5, start_epoch=1)
    settings = {"aggregator": tiny_abmil(), "student_head": tiny_head(), "hpm": hpm}
    return WENO(**tiny_parts(norm) | settings | switches)


def train_rank(rank, port, world_size, norm, folder):
    """One rank of a two-process run; leaves its weights, buffers and metrics in a file."""
    torch.set_num_threads(1)
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "LOCAL_RANK": str(rank),
        "NODE_RANK": "0",
        "WORLD_SIZE": str(world_size),
    }
    from lightning.pytorch.strategies import DDPStrategy

    model = make_weno(norm)
    data = TinyData(tiny_splits(seed=1), bags_per_step=1, instances_per_step=8)
    strategy = DDPStrategy(find_unused_parameters=True, process_group_backend="gloo")
    trainer = fit(model, data, epochs=2, devices=world_size, strategy=strategy)
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
    torch.save({"state": model.state_dict(), "metrics": metrics}, Path(folder) / f"rank{rank}.pt")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def two_ranks(norm, folder):
    port = free_port()
    context = mp.get_context("spawn")
    workers = [context.Process(target=train_rank, args=(rank, port, 2, norm, str(folder))) for rank in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=180)
        assert worker.exitcode == 0
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


def test_two_ranks_equal_one_process_with_twice_the_batch(tmp_path):
    """One bag on each of two ranks takes the step of two bags in one process; likewise in the student phase.

    The 60 training instances end in a batch of 12, which two ranks share evenly.
    """
    first, second = two_ranks(norm=False, folder=tmp_path)
    model = make_weno()
    trainer = fit(model, TinyData(tiny_splits(seed=1), bags_per_step=2, instances_per_step=16), epochs=2)
    for name, value in model.state_dict().items():
        if name == "bag_thresholds":  # chosen among scores: differences of 1e-7 may choose the next one
            continue
        torch.testing.assert_close(first["state"][name], value, atol=1e-6, rtol=1e-5, msg=name)
        assert torch.equal(first["state"][name], second["state"][name]), name
    for name, value in first["metrics"].items():
        if "tuned" in name or "threshold" in name:
            continue
        assert value == pytest.approx(float(trainer.callback_metrics[name]), abs=1e-5, nan_ok=True), name
    assert first["metrics"] == second["metrics"]


def test_ranks_agree_on_batchnorm_statistics_when_they_evaluate(tmp_path):
    """Statistics drift apart while training; both ranks evaluate, and save, one model."""
    first, second = two_ranks(norm=True, folder=tmp_path)
    for name in first["state"]:
        assert torch.equal(first["state"][name], second["state"][name]), name


def test_the_command_runs_on_two_processes(tmp_path):
    """Lightning relaunches the command; one directory, one set of results, every bag exactly once."""
    small = ["trainer.max_epochs=2", "instances_per_step=32", "hydra.run.dir=out"]
    kd_mil("run", "experiment=weno_abmil", "trainer=ddp_cpu", *small, cwd=tmp_path)
    out = tmp_path / "out"
    metrics = json.loads((out / "metrics.json").read_text())
    assert 0 <= metrics["test/student/instance_auroc"] <= 1
    splits = [line.split(",") for line in (out / "splits.csv").read_text().splitlines()[1:]]
    tested = [line.split(",")[0] for line in (out / "bags.csv").read_text().splitlines()[1:]]
    assert sorted(tested) == sorted(row[0] for row in splits if row[-1] == "test")
