"""What IFKD's loop costs on top of its bare networks in both stages, and the memory of a step at 256 pixels."""

import copy
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any

import torch
from hydra.utils import instantiate
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from benchmarks.configuration import train
from benchmarks.machine import Clock, in_fresh_process, peak_memory_mib, ratio, timed
from benchmarks.parts import configured
from kd_mil.data.masks.mask_data import SegmentationData
from kd_mil.data.masks.synthetic_glands import SyntheticGlands
from kd_mil.methods.ifkd.ifkd import IFKD
from kd_mil.methods.ifkd.losses import distillation_loss, teacher_dice, teacher_targets, weighted_cross_entropy
from kd_mil.models.segmenters.vgg import VggMIL

STAGES = ("teacher", "student")
VGG = (64, 128, 256)
COLUMNS = ("setting", "stage", "images_per_s", "bare_per_s", "overhead_percent", "peak_mib", "grown_mib")
MOST_OVERHEAD = 10.0
MEMORY_SIDE, MEMORY_BATCH = 256, 16


@dataclass(frozen=True)
class Setting:
    """What is trained."""

    name: str
    image_size: int
    images: int
    batch: int
    widths: tuple[int, ...] = VGG
    epochs: int = 3
    """Timed pairs of a framework epoch and a bare one in each stage, after one pair that warms up."""


SETTINGS = (Setting("VGG-MIL, 64 pixels", 64, images=64, batch=16), Setting("VGG-MIL, 256 pixels", 256, 16, batch=8))


def run(quick: bool) -> dict[str, Any]:
    """Measure speed and memory; quickly: on a few small images."""
    settings = SETTINGS
    side, batch, widths = MEMORY_SIDE, MEMORY_BATCH, VGG
    if quick:
        settings = tuple(replace(s, image_size=32, images=8, batch=4, widths=(4, 6, 8), epochs=1) for s in settings)
        side, batch, widths = 32, 2, (4, 6, 8)
    rows = [row for setting in settings for row in measure(setting)]
    rows += [
        {"setting": f"{side} pixels, batch {batch}", "stage": stage}
        | in_fresh_process(measure_step, stage, side, batch, widths)
        for stage in STAGES
    ]
    return {
        "title": "IFKD's stages: the framework's loop against its bare networks",
        "note": "Speed of the median epoch. Memory: peak of one step in a process of its own, and its growth.",
        "columns": COLUMNS,
        "settings": [vars(setting) for setting in settings],
        "rows": rows,
        "goals": [] if quick else [goal(row) for row in rows if "overhead_percent" in row],
    }


def measure(setting: Setting) -> list[dict[str, Any]]:
    """One row for each stage: epochs of both loops take turns in this process."""
    timer = StageTimer(setting)
    stage = setting.epochs + 1
    overrides = (
        "experiment=ifkd_vgg",
        f"segmenter.widths={list(setting.widths)}",
        f"instances_per_step={setting.batch}",
        f"method.teacher_epochs={stage}",
        "method.switch.rule=never",
        f"trainer.max_epochs={2 * stage}",
        "trainer=cpu",
        "++trainer.limit_val_batches=0",
        "callbacks.overlays=null",
    )
    with tempfile.TemporaryDirectory() as run_dir:
        config = configured(*overrides, run_dir=run_dir)
        counts = {"train_images": setting.images, "val_images": 4, "test_images": 4}
        data = SyntheticGlands(instantiate(config.loading), image_size=setting.image_size, **counts)
        train(config, data, timer)
    return [stage_row(setting, stage, timer) for stage in STAGES]


def stage_row(setting: Setting, stage: str, timer: "StageTimer") -> dict[str, Any]:
    """Speeds and overhead of one stage."""
    loop, bare = timer.loop[stage][1:], timer.bare[stage][1:]
    return {
        "setting": setting.name,
        "stage": stage,
        "images_per_s": round(setting.images / median(clock.wall for clock in loop), 2),
        "bare_per_s": round(setting.images / median(clock.wall for clock in bare), 2),
        "overhead_percent": round(100 * ratio(loop, bare) - 100, 2),
        "loop_seconds": [clock.wall for clock in loop],
        "bare_seconds": [clock.wall for clock in bare],
    }


def goal(row: dict[str, Any]) -> dict[str, Any]:
    """Little overhead."""
    overhead = row["overhead_percent"]
    name = f"{row['setting']}, {row['stage']}: overhead <= {MOST_OVERHEAD:g} %"
    return {"goal": name, "value": overhead, "reached": overhead <= MOST_OVERHEAD}


class StageTimer(Callback):
    """Times each epoch from its start to the last step's end; then the bare networks have their turn."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.loop: dict[str, list[Clock]] = {stage: [] for stage in STAGES}
        self.bare: dict[str, list[Clock]] = {stage: [] for stage in STAGES}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, IFKD)
        data: SegmentationData = trainer.datamodule  # type: ignore[attr-defined]
        self._bare = BareStages(pl_module, data)

    def on_train_epoch_start(self, *args: Any) -> None:
        self._start = Clock.now()

    def on_train_batch_end(self, *args: Any) -> None:
        self._end = Clock.now()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, IFKD)
        stage = STAGES[pl_module.stage_two]
        self.loop[stage].append(self._end.since(self._start))
        order = self._bare.train[torch.randperm(len(self._bare.train))]
        self.bare[stage].append(timed(partial(self._bare.epoch, stage, order, self.setting.batch)))


class BareStages:
    """Both stages in plain PyTorch, on copies of a method's networks."""

    def __init__(self, method: IFKD, data: SegmentationData) -> None:
        assert isinstance(data.bags.instances, Tensor)
        self.images, self.labels, self.train = data.bags.instances, data.bags.labels, data.splits.train
        self.preprocess = copy.deepcopy(method.preprocess)
        self.teacher, self.student = copy.deepcopy(method.teacher), copy.deepcopy(method.student)
        self.weight = method.wce.weight
        self.optimizers = [method.new_optimizer(part.parameters()) for part in (self.teacher, self.student)]

    def epoch(self, stage: str, order: Tensor, batch: int) -> None:
        """Steps on all images, in the given order."""
        self.teacher.train(stage == "teacher")
        self.student.train()
        step = self.teacher_step if stage == "teacher" else self.student_step
        for chosen in order.split(batch):
            step(self.preprocess(self.images[chosen]), self.labels[chosen])

    def teacher_step(self, images: Tensor, labels: Tensor) -> None:
        """Stage one."""
        output = self.teacher(images)
        step(self.optimizers[0], teacher_dice(output.sides, output.fused, labels).mean())

    def student_step(self, images: Tensor, labels: Tensor) -> None:
        """Stage two."""
        with torch.no_grad():
            teacher = self.teacher(images)
        student = self.student(images)
        loss = distillation_loss(student.sides, student.fused, teacher.sides, teacher.fused, labels).mean()
        targets = teacher_targets(teacher.fused, labels)
        step(self.optimizers[1], loss + self.weight * weighted_cross_entropy(student.fused, targets).mean())


def step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One update."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def measure_step(stage: str, side: int, batch: int, widths: tuple[int, ...]) -> dict[str, Any]:
    """Peak memory of this process after two steps of a stage, and how much they added."""
    build: Callable[[], VggMIL] = partial(VggMIL, (3, side, side), widths=widths)
    bare = BareStages.__new__(BareStages)
    bare.teacher, bare.student, bare.weight = build(), build(), 2.0
    bare.optimizers = [torch.optim.AdamW(part.parameters()) for part in (bare.teacher, bare.student)]
    images, labels = torch.rand(batch, 3, side, side), torch.arange(batch) % 2
    before = peak_memory_mib()
    bare.teacher.train(stage == "teacher")
    samples = [timed(partial(bare.teacher_step if stage == "teacher" else bare.student_step, images, labels))]
    peak = peak_memory_mib()
    return {
        "peak_mib": round(peak),
        "grown_mib": round(peak - before),
        "step_seconds": [clock.wall for clock in samples],
    }
