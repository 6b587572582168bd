"""Seconds of training until the student tells positive from negative instances of the validation bags."""

import tempfile
import time
from dataclasses import dataclass
from typing import Any

import lightning as L
from hydra.utils import instantiate
from lightning.pytorch import Callback

from benchmarks.configuration import train
from benchmarks.parts import configured
from kd_mil.core.errors import UserError
from kd_mil.data.datamodules import BagDataModule

METRIC = "val/student/instance_auroc"
TIME_LIMIT = 300.0
"""Seconds of training and evaluation after which a run is given up."""
UNTIL_STOPPED = ("trainer=cpu", "trainer.max_epochs=100000")


COLUMNS = ("data", "target", "reached", "training_seconds", "epochs", "best", "evaluation_seconds", "skipped")


@dataclass(frozen=True)
class Case:
    """A run of the real command, and what it has to reach."""

    name: str
    overrides: tuple[str, ...]
    target: float = 0.90


CASES = (
    Case("colon_nuclei, fold 0", ("experiment=weno_gated_abmil", "data=colon_nuclei", "data.fold=0")),
    Case(
        "cifar10_mil, 50 training and 20 validation bags",
        (
            "experiment=weno_gated_abmil",
            "data=cifar10_mil",
            "data.max_train_bags=70",
            "data.val_fraction=0.2858",
            "data.max_test_bags=2",
        ),
    ),
)
QUICK = (Case("digits_mil", ("experiment=weno_gated_abmil", "data=digits_mil"), target=0.6),)


def run(quick: bool) -> dict[str, Any]:
    """Train every case whose data is there; quickly: digits, to a modest target."""
    rows = [measure(case) for case in (QUICK if quick else CASES)]
    return {
        "title": f"seconds of training until {METRIC} reaches its target",
        "note": "Looked at once an epoch. Time for evaluation is not part of the training seconds.",
        "time_limit": TIME_LIMIT,
        "columns": COLUMNS,
        "rows": rows,
        "goals": [],
    }


def measure(case: Case, time_limit: float = TIME_LIMIT) -> dict[str, Any]:
    """One row; says why where the case cannot run."""
    row: dict[str, Any] = {"data": case.name, "target": case.target, "overrides": list(case.overrides)}
    timer = TimeToAccuracy(case.target, time_limit)
    with tempfile.TemporaryDirectory() as run_dir:
        config = configured(*case.overrides, *UNTIL_STOPPED, run_dir=run_dir)
        data: BagDataModule = instantiate(config.data, _convert_="all")
        try:
            data.setup()
        except UserError as error:
            return row | {"skipped": str(error)}
        train(config, data, timer)
    return row | timer.result()


class TimeToAccuracy(Callback):
    """Stops training at the target or the time limit; keeps time of training and of evaluation apart."""

    def __init__(self, target: float, time_limit: float) -> None:
        self.target, self.time_limit = target, time_limit
        self.training = self.evaluation = 0.0
        self.history: list[tuple[float, float]] = []
        self._mark = 0.0

    def on_train_epoch_start(self, *args: Any) -> None:
        self._mark = time.perf_counter()

    def on_validation_start(self, *args: Any) -> None:
        self.training += self._lap()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.evaluation += self._lap()
        self.history.append((round(self.training, 3), round(float(trainer.callback_metrics[METRIC]), 4)))
        late = self.training + self.evaluation > self.time_limit
        trainer.should_stop = trainer.should_stop or self.reached or late

    @property
    def reached(self) -> bool:
        return self.history[-1][1] >= self.target

    def result(self) -> dict[str, Any]:
        """Times, the best value, and (training seconds, AUROC) of each epoch."""
        return {
            "reached": self.reached,
            "training_seconds": round(self.training, 2),
            "epochs": len(self.history),
            "instance_auroc": self.history[-1][1],
            "best": max(value for _, value in self.history),
            "evaluation_seconds": round(self.evaluation, 2),
            "history": self.history,
        }

    def _lap(self) -> float:
        before, self._mark = self._mark, time.perf_counter()
        return self._mark - before
