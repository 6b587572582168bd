"""Several gloo processes against one: losses, weights, metrics; a process that is lost; commands."""

import json
import os
import signal
import subprocess
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import torch

from kd_mil.methods.baselines.supervised import Supervised
from tests.support.command import free_port, kd_mil
from tests.support.dealt_runs import IMBALANCED, build, differences, join, train, train_rank
from tests.support.killing import start, wait_for
from tests.support.ranks import results_of, start_ranks
from tests.support.tiny import TinyData, fit, tiny_head, tiny_parts, tiny_splits
from tests.support.warm_python import COLD

pytestmark = pytest.mark.slow

RANKS = 3
FAST = (
    *("weno_pixels", "weno_norm_3_bags", "weno_multiclass", "rnn_mil", "d2l_norm", "ins", "ifkd", "resolution_kd"),
    IMBALANCED,
)
"""Of all runs, of which the campaign has the rest, on 1 to 4 ranks."""


@pytest.fixture(scope="module")
def dealt(tmp_path_factory):
    """What three ranks make of the runs, one after the other, and checkpoints of each epoch."""
    folder = tmp_path_factory.mktemp("dealt")
    return folder, results_of(start_ranks(train_rank, RANKS, FAST, str(folder), ranks=RANKS), folder)


@pytest.mark.parametrize("name", FAST)
def test_three_ranks_take_the_steps_of_one_process(name, dealt):
    """Bags of 1 to 9 instances, a step of 1 or 3, do not divide; of the smallest a rank has nothing to do."""
    _, by_rank = dealt
    first = by_rank[0][name]
    for other in by_rank[1:]:
        assert other[name]["losses"] == first["losses"]
        for key, value in first["state"].items():
            assert torch.equal(value.nan_to_num(-1), other[name]["state"][key].nan_to_num(-1)), key
    alone = train(name)
    assert first["epochs"] == alone["epochs"]
    assert name != IMBALANCED or first["epochs"] < 8, "it should stop early"
    found = differences(alone, first)
    assert found["losses"] < 1e-5
    assert found["weights"] < 1e-4
    assert found["metrics"] < 1e-5


@pytest.mark.parametrize("name", ["weno_pixels", "ifkd", IMBALANCED])
def test_one_process_goes_on_where_three_ranks_stopped(name, dealt):
    folder, by_rank = dealt
    found = differences(by_rank[0][name], train(name, start=folder / name / "epoch0.ckpt"))
    assert found["losses"] < 1e-5
    assert found["weights"] < 1e-4


def lonely_splits():
    """One positive bag in training, and labels of the instances of one bag: in most steps a rank has neither."""
    splits = tiny_splits(seed=1)
    labels = splits.bags.labels.clone()
    labels[splits.train] = 0
    labels[splits.train[3]] = 1
    known = splits.bags.bag_of_instance == splits.train[3]
    instance_labels = torch.where(known | (splits.bags.bag_of_instance >= 12), splits.bags.instance_labels, -1)
    return splits._replace(bags=replace(splits.bags, labels=labels, instance_labels=instance_labels))


def train_lonely(rank, port, folder):
    """One rank of two, on those bags; with labels by transport, which read the positive bag on either."""
    join(rank, port, 2)
    from lightning.pytorch.strategies import DDPStrategy

    states = {}
    for name in ("weno_transport", "supervised"):
        method, _, epochs = build(name)
        if name == "supervised":
            method = partial(Supervised, **tiny_parts(), student_head=tiny_head())()
        strategy = DDPStrategy(find_unused_parameters=True, process_group_backend="gloo")
        fit(method, TinyData(lonely_splits(), instances_per_step=8), epochs=epochs, devices=2, strategy=strategy)
        states[name] = method.state_dict()
    torch.save(states, Path(folder) / f"rank{rank}.pt")


def test_ranks_without_positive_bags_or_labelled_instances_do_not_hang(tmp_path):
    first, second = results_of(start_ranks(train_lonely, str(tmp_path)), tmp_path)
    for name, state in first.items():
        for key, value in state.items():
            assert torch.equal(value, second[name][key]), (name, key)
            assert value.isfinite().all(), (name, key)


def state_of(process):
    """Letter of a process's state; Z for one that is gone, or ended and not waited for."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "Z"


@pytest.mark.parametrize("lost", [0, 1])
def test_a_lost_rank_ends_the_job(lost, tmp_path):
    """kill -9 of one rank in the middle of an epoch: the other ends long before the 30 minutes it may wait,
    and not as if all were well.
    """
    small = ["data=digits_mil", "data.max_train_bags=30", "trainer.max_epochs=5000", "hydra.run.dir=out"]
    job = start("experiment=mil_max", "trainer=ddp_cpu", *small, cwd=tmp_path, **{COLD: "1"})  # a child of its own
    wait_for(job, "epoch ")
    [child] = subprocess.run(["pgrep", "-P", str(job.pid)], capture_output=True, text=True, check=True).stdout.split()
    os.kill((job.pid, int(child))[lost], signal.SIGKILL)
    killed = time.monotonic()
    output, _ = job.communicate(timeout=60)  # until both have closed their output
    assert time.monotonic() - killed < 60
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
    small = ["data=digits_mil", "data.max_train_bags=30", "data.max_test_bags=10", "encoder=tiny_cnn"]
    small += ["trainer.max_epochs=2", "instances_per_step=32", "hydra.run.dir=out"]
    kd_mil("run", "experiment=weno_abmil", "trainer=ddp_cpu", *small, cwd=tmp_path)
    out = tmp_path / "out"
    metrics = json.loads((out / "metrics.json").read_text())
    assert 0 <= metrics["test/student/instance_auroc"] <= 1
    assert 0 <= metrics["train/pseudo_labels/student_auroc"] <= 1
    splits = pd.read_csv(out / "splits.csv")
    tested = [line.split(",")[0] for line in (out / "bags.csv").read_text().splitlines()[1:]]
    assert sorted(tested) == sorted(splits.bag_id[splits.split == "test"])
