"""WENO beside its authors' released CIFAR-10 script: the same bags, pixels, steps and threads, an epoch each in turn.

KD_MIL_WENO=/path/to/WENO python -m benchmarks --only released_weno

That is a checkout of github.com/miccaiif/WENO; none of its code is here. Without one ours is timed alone.
"""

import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate
from statistics import median
from typing import Any

import lightning as L
import torch
from hydra.utils import instantiate
from torch import Tensor, nn

from benchmarks.configuration import train
from benchmarks.machine import Clock, cpu_ratio, ratio
from benchmarks.parts import configured
from benchmarks.released_loop import MakeLoop, loops_of
from benchmarks.training_loop import CIFAR, PHASES, PhaseTimer, RandomBags, Setting
from experiments.equivalence.checkouts import commit
from kd_mil.core.errors import UserError
from kd_mil.data.bags import BagSplits
from kd_mil.data.datamodules import BagDataModule
from kd_mil.evaluation.ranking import areas_of
from kd_mil.methods.weno.weno import WENO

CHECKOUT = "KD_MIL_WENO"
SETTING = replace(CIFAR, epochs=3)
CIFAR10 = ("data.max_train_bags=60", "data.val_fraction=0.1667", "data.max_test_bags=2")
"""50 training bags, 10 for validation."""
TARGET = 0.85
LEAST = {"teacher": 1.0, "student": 1.25}
COLUMNS = (
    *("phase", "instances_per_s", "released_per_s", "speedup", "cpu_speedup"),
    *("auroc", "seconds_to_target", "released_auroc", "released_seconds_to_target"),
)
Row = dict[str, Any]


def run(quick: bool) -> Row:
    """Three epochs of each; quickly: one, on few bags, of 5 instances where ours runs alone."""
    folder, setting = os.environ.get(CHECKOUT), SETTING
    if quick:
        setting = replace(setting, bags=2, bag_length=100 if folder else 5, epochs=1)
    with loops_of(folder) as make:
        rows, data = measure(setting, make, quick)
    return {
        "title": "WENO's two phases beside the authors' released script",
        "note": "Speed of the median epoch with loading of batches. AUROC: of the student's instances in validation "
        f"bags after the last epoch, and seconds of training until it is {TARGET:g}."
        + ("" if folder else f" Ours alone: {CHECKOUT} names no checkout."),
        "columns": COLUMNS,
        "settings": [vars(setting)],
        "data": data,
        "released_commit": commit(folder) if folder else None,
        "rows": rows,
        "goals": [] if quick else [goal for row in rows for goal in goals(row)],
    }


def goals(row: Row) -> list[Row]:
    """Speed of a phase against the released script's, where there is a checkout."""
    if "speedup" not in row:
        return []
    least = LEAST[row["phase"]]
    text = f"{row['phase']}: >= {least:g}x the released script"
    return [{"goal": text, "value": row["speedup"], "reached": row["speedup"] >= least}]


def measure(setting: Setting, make: MakeLoop | None, quick: bool) -> tuple[list[Row], str]:
    """A row for each phase and one for both, and which images they are."""
    with tempfile.TemporaryDirectory() as run_dir:
        overrides = (*setting.overrides, "trainer=cpu", f"trainer.max_epochs={setting.epochs}", *CIFAR10)
        config = configured(*overrides, "++trainer.limit_val_batches=0", run_dir=run_dir)
        data = patterns(setting, config) if quick else images(setting, config)
        timer = ReleasedTimer(make)
        train(config, data, timer)
    of_phases = [phase_row(phase, setting.bags * setting.bag_length, timer) for phase in PHASES]
    return [*of_phases, both_row(timer)], "patterns" if isinstance(data, PatternBags) else "CIFAR-10"


def images(setting: Setting, config: Any) -> BagDataModule:
    """Bags of CIFAR-10 where it lies under `paths.data_dir`, else of patterns."""
    data: BagDataModule = instantiate(config.data, _convert_="all")
    try:
        data.setup()
    except UserError:
        return patterns(setting, config)
    return data


def patterns(setting: Setting, config: Any) -> "PatternBags":
    """Bags that need no files."""
    return PatternBags(setting, instantiate(config.loading))


class PatternBags(RandomBags):
    """Random pixels; every fifth image of a positive bag is brighter."""

    def load(self) -> BagSplits:
        splits = super().load()
        bags = splits.bags
        assert isinstance(bags.instances, Tensor)
        place = torch.arange(len(bags.instances))
        positive = (bags.labels[bags.bag_of_instance] > 0) & (place % 5 == 0)
        brighter = bags.instances[positive].int().add(60).clamp(max=255)
        bags.instances[positive] = brighter.to(torch.uint8)
        return splits._replace(bags=replace(bags, instance_labels=positive.long()))


class ReleasedTimer(PhaseTimer):
    """Times ours, then theirs, and asks both students about the validation bags, which is not timed."""

    def __init__(self, make: MakeLoop | None) -> None:
        super().__init__()
        self._make = make
        self.auroc: list[float] = []
        self.released_auroc: list[float] = []

    def prepare(self, method: WENO, data: BagDataModule) -> None:
        bags, chosen = data.bags, data.splits.train
        held_out = bags.instances_of(data.splits.val)
        assert isinstance(bags.instances, Tensor)
        self._images, self._truth = bags.instances[held_out].float() / 255, bags.instance_labels[held_out] > 0
        self.released = self._make and self._make(bags, chosen, data.loading.instances_per_step)

    def turns(self) -> dict[str, Callable[[], object]]:
        return self.released.turns(len(self.auroc)) if self.released else {}

    def on_train_epoch_end(self, trainer: L.Trainer, *args: Any) -> None:
        super().on_train_epoch_end(trainer, *args)
        method: Any = trainer.lightning_module
        self.auroc.append(self._auroc(method.encoder, method.student_head))
        if self.released:
            self.released_auroc.append(self._auroc(self.released.encoder, self.released.student))

    def _auroc(self, encoder: nn.Module, head: nn.Module) -> float:
        network = nn.Sequential(encoder, head)
        modes = [(layer, layer.training) for layer in network.modules()]
        with torch.no_grad():
            logits = torch.cat([network.eval()(images) for images in self._images.split(256)]).double()
        for layer, mode in modes:
            layer.training = mode
        return round(float(areas_of(logits[:, 1] - logits[:, 0], self._truth)[0]), 4)


def phase_row(phase: str, instances: int, timer: ReleasedTimer) -> Row:
    """Speeds of one phase."""
    ours, theirs = timer.loop[phase], timer.other[phase]
    row: Row = {"phase": phase, "instances_per_s": speed(ours, instances), **seconds_of("loop", ours)}
    if theirs:
        row |= {"released_per_s": speed(theirs, instances), **seconds_of("released", theirs)}
        row |= {"speedup": round(ratio(theirs, ours), 3), "cpu_speedup": round(cpu_ratio(theirs, ours), 3)}
    return row


def speed(epochs: list[Clock], instances: int) -> float:
    """Instances per second of the median epoch."""
    return round(instances / median(clock.wall for clock in epochs), 1)


def seconds_of(name: str, epochs: list[Clock]) -> dict[str, list[float]]:
    """Of each epoch, on the clock and of processors."""
    wall, cpu = ([round(getattr(clock, kind), 3) for clock in epochs] for kind in ("wall", "cpu"))
    return {f"{name}_seconds": wall, f"{name}_cpu_seconds": cpu}


def both_row(timer: ReleasedTimer) -> Row:
    """What the students know after each epoch, and after how many seconds of both phases they know enough."""
    row: Row = {"phase": "both"}
    for name, clocks, areas in (("", timer.loop, timer.auroc), ("released_", timer.other, timer.released_auroc)):
        if areas:
            ends = accumulate(sum(clocks[phase][epoch].wall for phase in PHASES) for epoch in range(len(areas)))
            reached = (round(end, 1) for end, area in zip(ends, areas, strict=True) if area >= TARGET)
            row |= {f"{name}auroc": areas[-1], f"{name}aurocs": areas, f"{name}seconds_to_target": next(reached, None)}
    return row
