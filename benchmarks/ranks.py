"""What several ranks gain: the same run of WENO on one, two and four processes of one thread each, phase by phase."""

import os
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import lightning as L
import torch
import torch.multiprocessing as mp
from hydra.utils import instantiate
from lightning.pytorch import Callback

from benchmarks.configuration import train
from benchmarks.machine import Clock
from benchmarks.parts import configured
from benchmarks.training_loop import PHASES, RandomBags, Setting
from kd_mil.core.run_files import read_json, write_json
from kd_mil.data.batches import BagBatch

COLUMNS = (
    *("setting", "phase", "ranks", "ms_per_step", "cpu_ms_per_step", "speedup", "cpu_speedup", "sent_kib_per_step"),
    *("simulated_4", "simulated_8"),
)
LEAST_SPEEDUP = 1.6
BANDWIDTH = 50e9
"""Bytes per second between GPUs of one node that the simulation assumes; NVLink has several times as much."""
NUMBERS = (1, 2, 4)


PIXEL_RUN = ("experiment=weno_abmil", "encoder=alexnet_cifar", "hpm=off")
PIXELS = Setting("pixels", PIXEL_RUN, (3, 32, 32), bags=8, bag_length=100, epochs=3)
FEATURES = Setting(
    "features",
    ("experiment=weno_gated_abmil", "encoder=features", "preprocess=features", "hpm=off"),
    (512,),
    bags=40,
    bag_length=1000,
    epochs=3,
)


def run(quick: bool) -> dict[str, Any]:
    """Time all settings on each number of ranks; quickly: on a few small bags and two ranks."""
    settings, numbers = [PIXELS, FEATURES], NUMBERS[:2] if quick else NUMBERS
    if quick:
        settings = [replace(setting, bags=2, bag_length=4, epochs=1) for setting in settings]
    rows = [row for setting in settings for row in measure(setting, numbers)]
    return {
        "title": "WENO on several ranks, the same run on each",
        "note": "Median epoch but the first, one thread a rank; on fewer cores than ranks, CPU time tells more. "
        "Simulated: by Amdahl's law from one and two, with the bytes of a step at 50 GB/s.",
        "columns": COLUMNS,
        "settings": [vars(setting) for setting in settings],
        "rows": rows,
        "goals": [] if quick else [goal(rows)],
    }


def goal(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Whether an epoch of pixels, both phases, is as fast on two ranks as it should be."""
    one, two = (
        sum(median(row["epoch_seconds"]) for row in rows if (row["setting"], row["ranks"]) == ("pixels", ranks))
        for ranks in (1, 2)
    )
    value = round(one / two, 2)
    text = f"pixels, both phases: two ranks >= {LEAST_SPEEDUP}x of one"
    return {"goal": text, "value": value, "reached": value >= LEAST_SPEEDUP}


def measure(setting: Setting, numbers: tuple[int, ...]) -> list[dict[str, Any]]:
    """A row for each phase and number of ranks."""
    trained = replace(setting, overrides=(*setting.overrides, *training_only(setting.epochs)))
    by_number = {ranks: seconds_of(trained, ranks) for ranks in numbers}
    rows = []
    for phase in PHASES:
        one = by_number[1][phase]
        for ranks, found in by_number.items():
            mine = found[phase]
            row = {"setting": setting.name, "phase": phase, "ranks": ranks}
            row |= {"ms_per_step": round(1000 * mine["wall"], 2), "cpu_ms_per_step": round(1000 * mine["cpu"], 2)}
            row |= {"speedup": round(one["wall"] / mine["wall"], 2), "cpu_speedup": round(one["cpu"] / mine["cpu"], 2)}
            row["epoch_seconds"] = mine["seconds"]
            if ranks > 1:
                row["sent_kib_per_step"] = round(mine["bytes"] / 1024, 1)
            if ranks == 2:
                times = (one["cpu"], mine["cpu"], mine["bytes"])
                row |= {f"simulated_{number}": simulated(*times, number) for number in (4, 8)}
            rows.append(row)
    return rows


def simulated(one: float, two: float, sent: float, ranks: int) -> float:
    """Speed-up of some ranks where a step takes one process `one` seconds and each of two ranks `two`."""
    shared = min(max(2 * (one - two), 0.0), one)
    return round(one / (one - shared + shared / ranks + sent / BANDWIDTH), 2)


def training_only(epochs: int) -> tuple[str, ...]:
    """Overrides of a run of so many epochs after the first, which nothing validates."""
    return (f"trainer.max_epochs={epochs + 1}", "++trainer.limit_val_batches=0")


def seconds_of(setting: Setting, ranks: int) -> dict[str, dict[str, Any]]:
    """Seconds and bytes of a step of each phase, of the slowest rank."""
    found = on_ranks(setting, ranks, StepTimer)
    return {phase: max((one[phase] for one in found), key=lambda spent: spent["cpu"]) for phase in PHASES}


def on_ranks(setting: Setting, ranks: int, timer: type["RunTimer"]) -> list[dict[str, Any]]:
    """What a timer found in each of some ranks of a run; each is a new process of one thread.

    Raises:
        RuntimeError: a rank died.
    """
    port = 21_000 + os.getpid() % 10_000 + ranks
    with tempfile.TemporaryDirectory() as folder:
        context = mp.get_context("spawn")
        calls = [(rank, port, ranks, setting, timer, folder) for rank in range(ranks)]
        workers = [context.Process(target=_rank, args=call) for call in calls]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        results = [Path(folder) / f"{rank}.json" for rank in range(ranks)]
        if not all(result.is_file() for result in results):
            raise RuntimeError(f"{setting.name} on {ranks} ranks: a process ended before the run did")
        return [read_json(result) for result in results]


class RunTimer(Callback):
    """Made in the process of a rank before anything else happens there."""

    def found(self) -> dict[str, Any]:
        """What it has seen, once the run is over."""
        raise NotImplementedError


def _rank(rank: int, port: int, ranks: int, setting: Setting, timer_class: type[RunTimer], folder: str) -> None:
    torch.set_num_threads(1)
    timer = timer_class()
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_RANK": str(rank), "NODE_RANK": "0"}
    os.environ |= place | {"WORLD_SIZE": str(ranks)}
    devices = ("trainer=ddp_cpu", f"trainer.devices={ranks}") if ranks > 1 else ("trainer=cpu",)
    config = configured(*devices, *setting.overrides, run_dir=folder)
    train(config, RandomBags(setting, instantiate(config.loading)), timer)
    write_json(Path(folder) / f"{rank}.json", timer.found())


class StepTimer(RunTimer):
    """Seconds and bytes of the steps of each phase, epoch by epoch."""

    def __init__(self) -> None:
        self.epochs: list[dict[str, Clock]] = []
        self.steps, self.bytes = dict.fromkeys(PHASES, 0), dict.fromkeys(PHASES, 0)

    def on_train_epoch_start(self, *args: Any) -> None:
        self.epochs.append({})
        self.steps = dict.fromkeys(PHASES, 0)
        self._start = Clock.now()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        _, batch, _ = args
        phase = "teacher" if isinstance(batch, BagBatch) else "student"
        self.epochs[-1][phase] = Clock.now().since(self._start)
        self.steps[phase] += 1
        self.bytes[phase] = bytes_of_step(pl_module, batch)

    def found(self) -> dict[str, dict[str, Any]]:
        """Seconds of a step in the median epoch but the first, its bytes, and the seconds of each such epoch."""
        found = {}
        for phase, before in zip(PHASES, (None, *PHASES), strict=False):
            spent = [one[phase].since(one[before]) if before else one[phase] for one in self.epochs[1:]]
            steps, bytes_ = self.steps[phase], self.bytes[phase]
            wall, cpu = (median(getattr(clock, kind) for clock in spent) / steps for kind in ("wall", "cpu"))
            found[phase] = {"wall": wall, "cpu": cpu, "bytes": bytes_, "seconds": [clock.wall for clock in spent]}
        return found


def bytes_of_step(method: Any, batch: Any) -> int:
    """Bytes that the ranks exchange in a step: gradients of all parts, rows that are gathered, batch statistics."""
    gradients = sum(weight.numel() for weight in method.parameters() if weight.requires_grad)
    width = method.encoder.out_features if isinstance(batch, BagBatch) else method.num_classes
    rows = len(batch.instance_ids) * width
    norms = (layer for layer in method.encoder.modules() if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm))
    return 4 * (gradients + rows + sum(4 * layer.num_features for layer in norms))
