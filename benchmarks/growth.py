"""How seconds of an epoch and memory grow with bags, instances in a bag, width of features, and ranks."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import lightning as L
import numpy as np

from benchmarks.machine import Clock, peak_memory_mib
from benchmarks.ranks import RunTimer, on_ranks, training_only
from benchmarks.training_loop import PHASES, Setting
from kd_mil.data.batches import BagBatch

EPOCHS = 3
"""Timed, after one that warms up; of each phase where these have epochs of their own."""
FEATURES = ("encoder=features", "preprocess=features", "aggregator=gated_abmil")
METHODS = {
    "WENO": ("experiment=weno", *FEATURES, *training_only(EPOCHS)),
    "MIL": ("experiment=mil", *FEATURES, *training_only(EPOCHS)),
    "Distill-to-Label": (
        "experiment=d2l",
        *FEATURES,
        f"method.teacher_epochs={EPOCHS + 1}",
        f"method.student_epochs={EPOCHS + 1}",
    ),
}
"""Overrides of a run of each; Distill-to-Label hands on what was validated, so two small bags are."""
BASE = {"bags": 20, "instances": 200, "width": 256, "ranks": 1}
AXES = {"bags": (20, 63, 200), "instances": (200, 632, 2000), "width": (256, 512, 1024), "ranks": (1, 2)}
QUICK_BASE = {"bags": 2, "instances": 4, "width": 8, "ranks": 1}
QUICK = {"WENO": {"bags": (2, 4), "ranks": (1, 2)}, "Distill-to-Label": {"bags": (2, 4)}}
LINEAR = 1.1
"""Largest exponent that counts as linear."""
COLUMNS = (
    *("method", "phase", "axis", "value", "seconds", "cpu_seconds", "added_mib"),
    *("seconds_exponent", "cpu_exponent", "memory_exponent"),
)
Row = dict[str, Any]


def run(quick: bool) -> Row:
    """Train every method at every point, each in processes of its own; quickly: two methods on a few small bags."""
    base = QUICK_BASE if quick else BASE
    rows = [
        row for name in METHODS if (axes := QUICK.get(name) if quick else AXES) for row in measure(name, base, axes)
    ]
    return {
        "title": "seconds of an epoch and memory, as the data grow",
        "note": "One thread a rank. Exponents: least squares in logarithms over an axis, in the row of its last point. "
        "Memory: what a rank's peak gains from before its data are made, weights and libraries included.",
        "columns": COLUMNS,
        "base": base,
        "methods": {name: list(overrides) for name, overrides in METHODS.items()},
        "rows": rows,
        "goals": [] if quick else goals(rows),
    }


def goals(rows: Sequence[Row]) -> list[Row]:
    """Linear in bags and in instances."""
    found = []
    for row in rows:
        if row["axis"] in ("bags", "instances") and "cpu_exponent" in row:
            of, exponent = f"{row['method']}, {row['phase']}: exponent of {row['axis']}", row["cpu_exponent"]
            found.append({"goal": f"{of} <= {LINEAR:g}", "value": exponent, "reached": exponent <= LINEAR})
    return found


def measure(name: str, base: Mapping[str, int], axes: Mapping[str, Sequence[int]]) -> list[Row]:
    """A row for each phase and point; the point that all axes share is measured once."""
    measured: dict[tuple[int, ...], dict[str, Row]] = {}
    rows = []
    for axis, values in axes.items():
        points = [dict(base) | {axis: value} for value in values]
        for point in points:
            key = tuple(point.values())
            measured[key] = measured.get(key) or by_phase(name, point)
        found = [measured[tuple(point.values())] for point in points]
        for phase in found[0]:
            of_phase = [
                {"method": name, "phase": phase, "axis": axis, "value": point[axis]} | point | one[phase]
                for point, one in zip(points, found, strict=True)
            ]
            of_phase[-1] |= exponents(of_phase)
            rows += of_phase
    return rows


def exponents(rows: Sequence[Row]) -> dict[str, float]:
    """Of seconds, CPU seconds and memory along an axis."""
    values = [row["value"] for row in rows]
    kinds = {"seconds": "seconds", "cpu": "cpu_seconds", "memory": "added_mib"}
    return {f"{kind}_exponent": exponent(values, [row[key] for row in rows]) for kind, key in kinds.items()}


def exponent(values: Sequence[float], costs: Sequence[float]) -> float:
    """Slope of the line through (log value, log cost) by least squares: cost grows as value to this power."""
    return round(float(np.polyfit(np.log(values), np.log(costs), 1)[0]), 3)


def by_phase(name: str, point: Mapping[str, int]) -> dict[str, Row]:
    """Seconds of an epoch of each phase, of the slowest rank, and the peak memory of the largest."""
    setting = Setting(name, METHODS[name], (point["width"],), point["bags"], point["instances"], EPOCHS)
    found = on_ranks(setting, point["ranks"], EpochTimer)
    memory = {key: max(one[key] for one in found) for key in ("peak_mib", "added_mib")}
    rows = {}
    for phase in PHASES:
        if phase in found[0]["wall"]:
            slowest = max(found, key=lambda one: median(one["wall"][phase]))
            wall, cpu = slowest["wall"][phase], slowest["cpu"][phase]
            row: Row = {"seconds": round(median(wall), 4), "cpu_seconds": round(median(cpu), 4)} | memory
            rows[phase] = row | {"epoch_seconds": wall, "epoch_cpu_seconds": cpu}
    return rows


class EpochTimer(RunTimer):
    """Seconds of each phase in each epoch, from its start to its last step's end, and the memory of it all."""

    def __init__(self) -> None:
        self._before = peak_memory_mib()
        self.epochs: list[dict[str, Clock]] = []

    def on_train_epoch_start(self, *args: Any) -> None:
        self.epochs.append({})
        self._mark = Clock.now()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        of_student = not isinstance(args[1], BagBatch) or getattr(pl_module, "phase", None) == "student"
        phase, now, spent = PHASES[of_student], Clock.now(), self.epochs[-1]
        lap, sofar = now.since(self._mark), spent.get(phase, Clock(0, 0))
        spent[phase] = Clock(sofar.wall + lap.wall, sofar.cpu + lap.cpu)
        self._mark = now

    def found(self) -> Row:
        """`wall` and `cpu` seconds by phase of its epochs but the first; `peak_mib`, and what of it is `added_mib`."""
        peak = peak_memory_mib()
        clocks = {phase: [one[phase] for one in self.epochs if phase in one][1:] for phase in PHASES}
        return {
            "wall": {phase: [round(clock.wall, 5) for clock in found] for phase, found in clocks.items() if found},
            "cpu": {phase: [round(clock.cpu, 5) for clock in found] for phase, found in clocks.items() if found},
            "peak_mib": round(peak, 1),
            "added_mib": round(peak - self._before, 1),
        }
