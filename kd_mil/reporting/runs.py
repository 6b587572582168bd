"""Runs as they lie in folders, and the points they repeat with other seeds and folds."""

import json
import os
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from kd_mil.core.errors import UserError
from kd_mil.core.records import read_record
from kd_mil.reporting.spread import defined_mean

REPETITIONS = ("seed", "data.fold", "data.seed")
"""Settings in which the runs of one point may differ."""
NOT_SETTINGS = ("experiment", "overwrite", "ckpt_path", "paths", "hydra", "hydra/launcher", "hydra/sweeper", "sweep")


class Run:
    """One run directory.

    Raises:
        UserError: a damaged run.json or metrics.json.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.record = read_record(directory / "run.json")
        self.overrides = settings(self.record.get("overrides", []))
        self.experiment = str(self.record.get("experiment", "unknown"))

    @property
    def finished(self) -> bool:
        return self.record.get("status") == "finished" and (self.directory / "metrics.json").is_file()

    @cached_property
    def metrics(self) -> dict[str, float | None]:
        """Content of metrics.json."""
        try:
            return json.loads((self.directory / "metrics.json").read_text())
        except ValueError as error:
            raise UserError(
                f"{self.directory / 'metrics.json'} is damaged: run it again with overwrite=true"
            ) from error

    @property
    def repetition(self) -> tuple[Any, ...]:
        """What pairs it with runs of other points: seed, and data with their split."""
        return (self.record.get("seed"), self.record.get("data_fingerprint"))

    @property
    def roles(self) -> list[str]:
        """Networks that have test metrics."""
        return list(dict.fromkeys(key.split("/")[1] for key in self.metrics if key.startswith("test/")))


class Point(NamedTuple):
    """Runs that differ in nothing but seed and fold."""

    name: str
    """Experiment, and the settings in which points differ."""
    experiment: str
    settings: dict[str, str]
    runs: list[Run]

    def values(self, key: str) -> list[float | None]:
        """One metric of all runs."""
        return [run.metrics.get(key) for run in self.runs]


def settings(overrides: Iterable[str]) -> dict[str, str]:
    """Overrides as a table, without what says nothing about the result."""
    pairs = (text.lstrip("+~").partition("=") for text in overrides)
    return {key: value for key, _, value in pairs if key.split(".")[0] not in NOT_SETTINGS}


def find_runs(directories: Sequence[Path]) -> list[Run]:
    """All runs in the folders, at any depth, each once.

    Raises:
        UserError: a folder that does not exist, or no run at all.
    """
    found: dict[Path, Path] = {}
    for directory in directories:
        if not directory.is_dir():
            raise UserError(f"{directory}: no such folder")
        for folder, below, files in os.walk(directory):
            if "run.json" in files:
                found.setdefault(Path(folder).resolve(), Path(folder))
                below.clear()
            below[:] = sorted(name for name in below if not name.startswith("."))
    if not found:
        raise UserError(f"no run.json under {', '.join(map(str, directories))}: give folders that hold runs")
    return [Run(path) for path in found.values()]


def points_of(runs: Sequence[Run]) -> list[Point]:
    """Finished runs by point, in the order of their names; numbers in numerical order."""
    chosen: dict[tuple, list[Run]] = {}
    for run in runs:
        fixed = tuple(sorted((key, value) for key, value in run.overrides.items() if key not in REPETITIONS))
        chosen.setdefault((run.experiment, fixed), []).append(run)
    shared = set.intersection(*[set(fixed) for _, fixed in chosen]) if chosen else set()
    points = []
    for (experiment, fixed), members in chosen.items():
        differing = {key: value for key, value in fixed if (key, value) not in shared}
        name = " ".join([experiment, *(f"{key}={value}" for key, value in differing.items())])
        points.append(Point(name, experiment, differing, sorted(members, key=lambda run: str(run.repetition))))
    return sorted(points, key=lambda point: (point.experiment, [natural(pair) for pair in point.settings.items()]))


def common_settings(runs: Sequence[Run]) -> dict[str, str]:
    """Overrides that all runs share."""
    shared = set.intersection(*[set(run.overrides.items()) for run in runs]) if runs else set()
    return dict(sorted(shared))


def natural(pair: tuple[str, str]) -> tuple[str, float, str]:
    """Sorting key of a setting."""
    value = number(pair[1])
    return (pair[0], float("inf") if value is None else value, pair[1])


def number(text: str) -> float | None:
    """The number that a setting is; None for any other."""
    try:
        return float(text)
    except ValueError:
        return None


def chosen_points(points: Sequence[Point]) -> dict[str, str]:
    """For each experiment the point that validation chooses: best mean of the metric that selected the checkpoints.

    Points are compared over the seeds and folds that all of them have, or over all where there are none such.
    Experiments whose points were selected by different metrics, or by an undefined one, have none.
    """
    best: dict[str, str] = {}
    for experiment in dict.fromkeys(point.experiment for point in points):
        candidates = [point for point in points if point.experiment == experiment]
        monitors = {(run.record.get("monitor"), run.record.get("monitor_mode")) for p in candidates for run in p.runs}
        if len(monitors) != 1:
            continue
        [(monitor, mode)] = monitors
        shared = set.intersection(*[{run.repetition for run in point.runs} for point in candidates])
        if shared:
            candidates = [p._replace(runs=[run for run in p.runs if run.repetition in shared]) for p in candidates]
        scores = {point.name: defined_mean(point.values(monitor)) for point in candidates if monitor}
        defined = {name: score for name, score in scores.items() if score is not None}
        if defined:
            best[experiment] = (min if mode == "min" else max)(defined, key=lambda name: defined[name])
    return best
