"""What the framework's training loop costs on top of a bare PyTorch loop, phase by phase of WENO."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import lightning as L
import torch
from hydra.utils import instantiate
from lightning.pytorch import Callback

from benchmarks.bare_loop import BareLoop
from benchmarks.configuration import train
from benchmarks.machine import Clock, cpu_ratio, ratio, timed
from benchmarks.parts import configured
from kd_mil.data.bags import Bags, BagSplits
from kd_mil.data.batches import BagBatch
from kd_mil.data.datamodules import BagDataModule, Loading
from kd_mil.methods.weno.weno import WENO

PHASES = ("teacher", "student")
COLUMNS = ("setting", "phase", "instances_per_s", "bare_per_s", "overhead_percent", "overhead_ms_per_step")
MOST_OVERHEAD = 10.0


@dataclass(frozen=True)
class Setting:
    """What is trained, on random bags of equal size."""

    name: str
    overrides: tuple[str, ...]
    """Of `python -m kd_mil.run`."""
    instance_shape: tuple[int, ...]
    bags: int
    bag_length: int = 100
    epochs: int = 3
    """Timed pairs of a framework epoch and a bare one."""
    warm_up: int = 0
    """Pairs before them."""


CIFAR = Setting(
    "released CIFAR-10",
    ("experiment=weno_abmil_released",),
    instance_shape=(3, 32, 32),
    bags=50,
)
CIFAR_BFLOAT16 = replace(
    CIFAR, name=f"{CIFAR.name}, bfloat16", overrides=(*CIFAR.overrides, "trainer.precision=bf16-mixed")
)
FEATURES = Setting(
    "features",
    ("experiment=weno_gated_abmil", "encoder=features", "preprocess=features", "hpm=off"),
    instance_shape=(512,),
    bags=200,
    epochs=9,
    warm_up=1,
)


def run(quick: bool) -> dict[str, Any]:
    """Measure all settings; quickly: on a few small bags."""
    settings = [CIFAR, CIFAR_BFLOAT16, FEATURES]
    if quick:
        small = ("student_head.hidden=[64]",)
        settings = [
            replace(s, overrides=s.overrides + small, bags=3, bag_length=5, epochs=1, warm_up=0) for s in settings
        ]
    rows = [row for setting in settings for row in measure(setting)]
    return {
        "title": "WENO's phases: the framework's loop against a bare PyTorch loop",
        "note": "Speed of the median epoch. Beside the authors' released code: benchmark released_weno.",
        "columns": COLUMNS,
        "settings": [vars(setting) for setting in settings],
        "rows": rows,
        "goals": [] if quick else [goal for row in rows for goal in goals(row)],
    }


def measure(setting: Setting) -> list[dict[str, Any]]:
    """One row for each phase: epochs of both loops take turns in this process."""
    timer = BareTimer()
    epochs = f"trainer.max_epochs={setting.warm_up + setting.epochs}"
    training_only = ("trainer=cpu", epochs, "++trainer.limit_val_batches=0")
    with tempfile.TemporaryDirectory() as run_dir:
        config = configured(*setting.overrides, *training_only, run_dir=run_dir)
        train(config, RandomBags(setting, instantiate(config.loading)), timer)
    return [phase_row(setting, phase, timer) for phase in PHASES]


def phase_row(setting: Setting, phase: str, timer: "PhaseTimer") -> dict[str, Any]:
    """Speeds and overhead of one phase."""
    loop, bare = timer.loop[phase][setting.warm_up :], timer.other[phase][setting.warm_up :]
    instances = setting.bags * setting.bag_length
    lost = median(clock.wall - other.wall for clock, other in zip(loop, bare, strict=True))
    speed = instances / median(clock.wall for clock in loop)
    row: dict[str, Any] = {
        "setting": setting.name,
        "phase": phase,
        "instances_per_s": round(speed, 1),
        "best_per_s": round(instances / min(clock.wall for clock in loop), 1),
        "bare_per_s": round(instances / median(clock.wall for clock in bare), 1),
        "overhead_percent": round(100 * ratio(loop, bare) - 100, 2),
        "overhead_cpu_percent": round(100 * cpu_ratio(loop, bare) - 100, 2),
        "overhead_ms_per_step": round(1000 * lost / timer.steps[phase], 3),
        "steps": timer.steps[phase],
        "loop_seconds": [clock.wall for clock in loop],
        "loop_cpu_seconds": [clock.cpu for clock in loop],
        "bare_seconds": [clock.wall for clock in bare],
        "bare_cpu_seconds": [clock.cpu for clock in bare],
    }
    return row


def goals(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Little overhead."""
    of, overhead = f"{row['setting']}, {row['phase']}", row["overhead_percent"]
    limit = f"{of}: overhead <= {MOST_OVERHEAD:g} %"
    return [{"goal": limit, "value": overhead, "reached": overhead <= MOST_OVERHEAD}]


class RandomBags(BagDataModule):
    """Random pixels or features; half of the bags are positive. Two bags more each for validation and test."""

    def __init__(self, setting: Setting, loading: Loading) -> None:
        super().__init__(loading)
        self.setting = setting

    def load(self) -> BagSplits:
        """Draw the bags."""
        setting, generator = self.setting, torch.Generator().manual_seed(0)
        order = torch.arange(setting.bags + 4)
        shape = (len(order) * setting.bag_length, *setting.instance_shape)
        if len(setting.instance_shape) == 3:
            instances = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        else:
            instances = torch.randn(shape, generator=generator, dtype=torch.float16)
        sizes = torch.full_like(order, setting.bag_length)
        bags = Bags(instances, sizes, labels=order % 2, bag_ids=[f"bag{number}" for number in order.tolist()])
        return BagSplits(bags, order[:-4], order[-4:-2], order[-2:])


class PhaseTimer(Callback):
    """Times the phases of each epoch, from its start to the last step's end; then another loop has its turn.

    All that a step causes is inside: fetching, hooks, logging. What happens after the last step is not.
    """

    def __init__(self) -> None:
        self.loop: dict[str, list[Clock]] = {phase: [] for phase in PHASES}
        self.other: dict[str, list[Clock]] = {phase: [] for phase in PHASES}
        self.steps = dict.fromkeys(PHASES, 0)
        self._ends: dict[str, Clock] = {}

    def prepare(self, method: WENO, data: BagDataModule) -> None:
        """Make the other loop, before the first epoch."""
        raise NotImplementedError

    def turns(self) -> dict[str, Callable[[], object]]:
        """One epoch of the other loop, by phase, the first to come first."""
        raise NotImplementedError

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, WENO)
        self.prepare(pl_module, trainer.datamodule)  # type: ignore[attr-defined]

    def on_train_epoch_start(self, *args: Any) -> None:
        self.steps = dict.fromkeys(PHASES, 0)
        self._start = Clock.now()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        _, batch, _ = args
        phase = "teacher" if isinstance(batch, BagBatch) else "student"
        self._ends[phase] = Clock.now()
        self.steps[phase] += 1

    def on_train_epoch_end(self, trainer: L.Trainer, *args: Any) -> None:
        self.loop["teacher"].append(self._ends["teacher"].since(self._start))
        self.loop["student"].append(self._ends["student"].since(self._ends["teacher"]))
        with trainer.precision_plugin.forward_context():  # the same precision
            for phase, work in self.turns().items():
                self.other[phase].append(timed(work))


class BareTimer(PhaseTimer):
    """Beside the bare loop."""

    def prepare(self, method: WENO, data: BagDataModule) -> None:
        self._bags = data.splits.train
        self._instances = data.bags.instances_of(self._bags)
        self._bare_loop = BareLoop(method, data)
        # kernels of these shapes are ready for both loops then
        self._bare_loop.teacher_phase(self._bags[:2])
        self._bare_loop.student_phase(self._instances[: data.loading.instances_per_step])

    def turns(self) -> dict[str, Callable[[], object]]:
        bags = self._bags[torch.randperm(len(self._bags))]
        instances = self._instances[torch.randperm(len(self._instances))]
        return {
            "teacher": lambda: self._bare_loop.teacher_phase(bags),
            "student": lambda: self._bare_loop.student_phase(instances),
        }
