"""Runs as they lie in folders, and the points they repeat with other seeds and folds."""

import math
import os
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from kd_mil.core.errors import UserError
from kd_mil.core.run_files import read_metrics, read_record
from kd_mil.reporting.predictions import HeldOut, held_out
from kd_mil.reporting.resampling import overlapping
from kd_mil.reporting.spread import defined_mean

REPETITIONS = ("seed", "data.fold", "data.seed")
"""Settings in which the runs of one point may differ."""
TEACHER = "method.teacher_ckpt"
UNKNOWN = "?"
"""Test case of runs that say nothing of theirs."""
NOT_SETTINGS = ("experiment", "overwrite", "ckpt_path", "paths", "hydra", "hydra/launcher", "hydra/sweeper", "sweep")


class Run:
    """One run directory. A damaged run.json is no error here: `fault` says so, in one line, and it is not finished."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.record: dict[str, Any] = {}
        self.fault: str | None = None
        try:
            self.record = read_record(directory / "run.json")
        except UserError as error:
            self.fault = str(error)
        self.overrides = settings(self.record.get("overrides") or [])
        self.experiment = self.record.get("experiment") or "unknown"

    @property
    def finished(self) -> bool:
        """Whether it has results, and they can be read."""
        done = self.record.get("status") == "finished" and (self.directory / "metrics.json").is_file()
        return done and self.fault is None

    @cached_property
    def metrics(self) -> dict[str, float | None]:
        """Content of metrics.json; None where undefined.

        Raises:
            UserError: a damaged file.
        """
        return read_metrics(self.directory / "metrics.json")

    @cached_property
    def held_out(self) -> HeldOut | None:
        """What it was tested on; None where no table of predictions says so.

        Raises:
            UserError: a damaged table.
        """
        return held_out(self.directory)

    @property
    def repetition(self) -> tuple[Any, ...]:
        """What pairs it with runs of other points: seed, and data with their split."""
        return (self.record.get("seed"), self.record.get("data_fingerprint"))

    @property
    def fixed(self) -> tuple[tuple[str, str], ...]:
        """Its settings but for what repetitions of a point differ in."""
        return tuple(sorted((key, value) for key, value in self.overrides.items() if key not in REPETITIONS))

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
    """Each another seed, fold or division."""
    copies: Sequence[Run] = ()
    """Runs of a seed and data that `runs` has already: the same result again, which counts once."""

    def values(self, key: str) -> list[float | None]:
        """One metric of all runs."""
        return [run.metrics.get(key) for run in self.runs]


def settings(overrides: Iterable[str]) -> dict[str, str]:
    """Overrides as a table, without what says nothing about the result."""
    pairs = (text.lstrip("+~").partition("=") for text in overrides)
    chosen = {key: value for key, _, value in pairs if key.split(".")[0] not in NOT_SETTINGS}
    return {key: without_repetition(value) if key == TEACHER else value for key, value in chosen.items()}


def without_repetition(path: str) -> str:
    """The path of a teacher's checkpoint without what says of which seed or fold: each run has that of its own."""
    parts = [
        ",".join(word for word in folder.split(",") if not re.match(r"((data\.)?(seed|fold)[=_-]?\d+|default)$", word))
        for folder in path.strip("'\"").split("/")
    ]
    return "/".join(part for part in parts if part)


def find_runs(directories: Sequence[Path]) -> list[Run]:
    """All runs in the folders, at any depth, each once; those that cannot be read have a `fault`.

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
    return [readable_or_not(path) for path in found.values()]


def readable_or_not(directory: Path) -> Run:
    """A run whose metrics are read, or whose fault is known."""
    run = Run(directory)
    try:
        if run.finished:
            _ = run.metrics
    except UserError as error:
        run.fault = str(error)
    return run


def points_of(runs: Sequence[Run]) -> list[Point]:
    """Finished runs by point, in the order of their names; numbers in numerical order."""
    chosen: dict[tuple, list[Run]] = {}
    for run in runs:
        chosen.setdefault((run.experiment, run.fixed), []).append(run)
    shared = set.intersection(*[set(fixed) for _, fixed in chosen]) if chosen else set()
    points = []
    for (experiment, fixed), members in chosen.items():
        differing = {key: value for key, value in fixed if (key, value) not in shared}
        name = " ".join([experiment, *(f"{key}={value}" for key, value in differing.items())])
        runs, copies = without_copies(sorted(members, key=lambda run: str(run.repetition)))
        points.append(Point(name, experiment, differing, runs, copies))
    return sorted(points, key=lambda point: (point.experiment, [natural(pair) for pair in point.settings.items()]))


def without_copies(runs: Sequence[Run]) -> tuple[list[Run], list[Run]]:
    """Runs of a point, and those among them that repeat the seed and the data of an earlier one."""
    first: dict[tuple[Any, ...], Run] = {}
    for run in runs:
        divided = () if run.record.get("data_fingerprint") else tuple(run.overrides.get(key) for key in REPETITIONS)
        taught_by = [text for text in run.record.get("overrides") or [] if text.startswith(f"{TEACHER}=")]
        first.setdefault((*run.repetition, *divided, *taught_by), run)
    kept = list(first.values())
    return kept, [run for run in runs if all(run is not other for other in kept)]


def common_settings(runs: Sequence[Run]) -> dict[str, str]:
    """Overrides that all runs share."""
    shared = set.intersection(*[set(run.overrides.items()) for run in runs]) if runs else set()
    return dict(sorted(shared))


def natural(pair: tuple[str, str]) -> tuple[str, float, str]:
    """Sorting key of a setting."""
    value = number(pair[1])
    return (pair[0], float("inf") if value is None else value, pair[1])


def number(text: str) -> float | None:
    """The finite number that a setting is; None for any other."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def chosen_points(points: Sequence[Point]) -> dict[str, str]:
    """For each experiment the point that validation chooses: best mean of the metric that selected the checkpoints.

    Points are compared over the seeds and folds that all of them have, or over all where there are none such.
    Points on other data are no choice: an experiment on several data sets has one for each, by its own name. Points
    that were selected by different metrics, or by an undefined one, have none.
    """
    best: dict[str, str] = {}
    for experiment in dict.fromkeys(point.experiment for point in points):
        rivals = by_data([point for point in points if point.experiment == experiment])
        for candidates in rivals:
            name = best_on_validation(candidates)
            if name is not None:
                best[experiment if len(rivals) == 1 else name] = name
    return best


def by_data(points: Sequence[Point]) -> list[list[Point]]:
    """Points by the data set that they name, and by the test cases that they or others of them have in common."""
    cases = [
        [case for run in point.runs if run.held_out is not None for case in run.held_out.cases] or [UNKNOWN]
        for point in points
    ]
    groups: dict[tuple[str | None, int], list[Point]] = {}
    for point, group in zip(points, overlapping(cases), strict=True):
        groups.setdefault((point.runs[0].overrides.get("data"), group), []).append(point)
    return list(groups.values())


def best_on_validation(candidates: Sequence[Point]) -> str | None:
    """Name of the best of some points; None where they cannot be compared."""
    monitors = {(run.record.get("monitor"), run.record.get("monitor_mode")) for p in candidates for run in p.runs}
    if len(monitors) != 1:
        return None
    [(monitor, mode)] = monitors
    shared = set.intersection(*[{run.repetition for run in point.runs} for point in candidates])
    if shared:
        candidates = [p._replace(runs=[run for run in p.runs if run.repetition in shared]) for p in candidates]
    scores = {point.name: defined_mean(point.values(monitor)) for point in candidates if monitor}
    defined = {name: score for name, score in scores.items() if score is not None}
    return (min if mode == "min" else max)(defined, key=lambda name: defined[name]) if defined else None
