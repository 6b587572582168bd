"""Two gloo processes against one: gradients, metrics and buffers."""

import json
import os
import signal
import subprocess
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import torch
import torch.multiprocessing as mp

from kd_mil.methods.baselines.mil import MIL
from kd_mil.methods.baselines.supervised import Supervised
from kd_mil.methods.weno.mining import HardPositiveMining
from kd_mil.methods.weno.weno import WENO
from tests.support.command import free_port, kd_mil
from tests.support.killing import start, wait_for
from tests.support.tiny import TinyData, fit, tiny_abmil, tiny_head, tiny_parts, tiny_splits

pytestmark = pytest.mark.slow


def make_method(name="weno", norm=False):
    torch.manual_seed(0)
    hpm = HardPositiveMining(mode="threshold", threshold=0.5, start_epoch=1)
    weno = partial(WENO, aggregator=tiny_abmil(), student_head=tiny_head(), hpm=hpm)
    methods = {
        "weno": weno,
        "mil": partial(MIL, aggregator=tiny_abmil()),
        "supervised": partial(Supervised, student_head=tiny_head()),
    }
    return methods[name](**tiny_parts(norm))


def lonely_splits():
    """One positive bag in training, and labels of the instances of one bag: in most steps a rank has neither."""
    splits = tiny_splits(seed=1)
    labels = splits.bags.labels.clone()
    labels[splits.train] = 0
    labels[splits.train[3]] = 1
    known = splits.bags.bag_of_instance == splits.train[3]
    instance_labels = torch.where(known | (splits.bags.bag_of_instance >= 12), splits.bags.instance_labels, -1)
    return splits._replace(bags=replace(splits.bags, labels=labels, instance_labels=instance_labels))


def train_rank(rank, port, world_size, method, norm, lonely, folder):
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

    model = make_method(method, norm)
    splits = lonely_splits() if lonely else tiny_splits(seed=1)
    data = TinyData(splits, bags_per_step=1, instances_per_step=8)
    patience = timedelta(seconds=60)
    strategy = DDPStrategy(find_unused_parameters=True, process_group_backend="gloo", timeout=patience)
    trainer = fit(model, data, epochs=2, devices=world_size, strategy=strategy)
    metrics = {
        name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith(("val/", "loss/"))
    }
    torch.save({"state": model.state_dict(), "metrics": metrics}, Path(folder) / f"rank{rank}.pt")


def two_ranks(folder, method="weno", norm=False, lonely=False):
    port = free_port()
    context = mp.get_context("spawn")
    settings = (method, norm, lonely, str(folder))
    workers = [context.Process(target=train_rank, args=(rank, port, 2, *settings)) for rank in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=180)
        assert worker.exitcode == 0
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("method", ["weno", "mil", "supervised"])
def test_two_ranks_equal_one_process_with_twice_the_batch(method, tmp_path):
    """One bag on each of two ranks takes the step of two bags in one process; likewise in the student phase.

    The 60 training instances end in a batch of 12, which two ranks share evenly.
    """
    first, second = two_ranks(tmp_path, method)
    model = make_method(method)
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
    first, second = two_ranks(tmp_path, norm=True)
    for name in first["state"]:
        assert torch.equal(first["state"][name], second["state"][name]), name


@pytest.mark.parametrize("method", ["weno", "supervised"])
def test_a_rank_without_positive_bags_or_labelled_instances_does_not_hang(method, tmp_path):
    """Its loss is 0, not absent: the other rank waits for its gradients."""
    first, second = two_ranks(tmp_path, method, lonely=True)
    for name, value in first["state"].items():
        assert torch.equal(value, second["state"][name]), name
        assert value.isfinite().all(), name


def state_of(process):
    """Letter of a process's state; Z for one that is gone, or ended and not waited for."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "Z"


@pytest.mark.parametrize("lost", [0, 1])
def test_a_lost_rank_ends_the_job(lost, tmp_path):
    """kill -9 of one rank in the middle of an epoch: the other ends soon after, and not as if all were well."""
    patience = ["+trainer.strategy.timeout.seconds=20", "trainer.strategy.timeout.minutes=0"]
    small = ["data=digits_mil", "data.max_train_bags=30", "trainer.max_epochs=5000", "hydra.run.dir=out"]
    job = start("experiment=mil_max", "trainer=ddp_cpu", *patience, *small, cwd=tmp_path)
    wait_for(job, "epoch ")
    [child] = subprocess.run(["pgrep", "-P", str(job.pid)], capture_output=True, text=True, check=True).stdout.split()
    os.kill((job.pid, int(child))[lost], signal.SIGKILL)
    output, _ = job.communicate(timeout=60)  # until both have closed their output
    assert job.returncode not in (0, None), output
    assert state_of(child) == "Z"


def test_the_command_runs_on_two_nodes_of_torchrun(tmp_path):
    """Two torchrun agents on this machine stand for two nodes."""
    small = ["data=digits_mil", "data.max_train_bags=30", "trainer.max_epochs=1", "hydra.run.dir=out"]
    nodes = ["trainer=ddp_cpu", "trainer.devices=1", "trainer.num_nodes=2"]
    meeting = ["--nnodes=2", "--nproc-per-node=1", "--master-addr=127.0.0.1", f"--master-port={free_port()}"]
    command = ["-m", "kd_mil.run", "experiment=mil_max", *small, *nodes]
    agents = [
        start(*meeting, f"--node-rank={rank}", *command, cwd=tmp_path, module="torch.distributed.run")
        for rank in range(2)
    ]
    for agent in agents:
        output, _ = agent.communicate(timeout=120)
        assert agent.returncode == 0, output[-3000:]
    assert json.loads((tmp_path / "out" / "run.json").read_text())["processes"] == 2
    assert (tmp_path / "out" / "metrics.json").is_file()


def test_the_command_runs_on_two_processes(tmp_path):
    """Lightning relaunches the command; one directory, one set of results, every bag exactly once."""
    small = ["trainer.max_epochs=2", "instances_per_step=32", "hydra.run.dir=out"]
    kd_mil("run", "experiment=weno_abmil", "trainer=ddp_cpu", *small, cwd=tmp_path)
    out = tmp_path / "out"
    metrics = json.loads((out / "metrics.json").read_text())
    assert 0 <= metrics["test/student/instance_auroc"] <= 1
    splits = pd.read_csv(out / "splits.csv")
    tested = [line.split(",")[0] for line in (out / "bags.csv").read_text().splitlines()[1:]]
    assert sorted(tested) == sorted(splits.bag_id[splits.split == "test"])
