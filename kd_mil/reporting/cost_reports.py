"""What runs on images say of cost and scores in their report.json, with the settings that tell them apart."""

import glob
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kd_mil.core.errors import UserError
from kd_mil.core.run_files import read_json
from kd_mil.reporting.runs import Run, points_of

RESOLUTIONS = ("data.student_downsample", "data.teacher_downsample")
"""Settings that a report says by itself, as the resolution of each role."""


class CostReport(NamedTuple):
    """The report of a run."""

    experiment: str
    roles: Mapping[str, Any]
    settings: str = ""
    """In which the runs of its experiment differ, besides resolution, seed and fold."""
    repetition: Hashable = None
    """Seed and test images: what pairs it with runs of other kinds and resolutions."""
    directory: Path | None = None
    """Of the run, with its predictions; None where they are not at hand."""


def find_reports(pattern: str) -> list[CostReport]:
    """Of every finished run whose directory matches; copies of a run count once.

    Raises:
        UserError: no such run, or a damaged file of one.
    """
    runs = [Run(Path(name)) for name in sorted(glob.glob(str(pattern), recursive=True)) if Path(name).is_dir()]
    for run in runs:
        if run.fault is not None:
            raise UserError(run.fault)
    reporting = [run for run in runs if run.finished and (run.directory / "report.json").is_file()]
    kept = [run for point in points_of(reporting) for run in point.runs]
    found = []
    for run in sorted(kept, key=reporting.index):
        roles = with_measured(read_report(run.directory / "report.json"), run.metrics)
        alike = [other for other in kept if other.experiment == run.experiment]
        found.append(CostReport(run.experiment, roles, differing(run, alike), repetition(run), run.directory))
    if not found:
        raise UserError(f"runs={pattern}: no finished run with a report.json there; quote the pattern")
    return found


def with_measured(roles: dict[str, Any], metrics: Mapping[str, float | None]) -> dict[str, Any]:
    """The roles of a report with what was measured from the file on, and validation scores, as `val`.

    Of slides the operations are those of a whole slide; of image files the report counts over all of the test images.
    """
    for role, found in roles.items():
        measured = {name: metrics.get(f"cost/{role}/{name}") for name in ("seconds", "bytes")}
        if found.get("unit") == "slide":
            measured["gmac"] = metrics.get(f"cost/{role}/gmac")
        found["cost"] |= {name: value for name, value in measured.items() if value is not None}
        start = f"val/{role}/image_"
        found["val"] = {name.removeprefix(start): value for name, value in metrics.items() if name.startswith(start)}
    return roles


def differing(run: Run, others: Sequence[Run]) -> str:
    """The settings of a run that not all others have, but for its resolution."""
    shared = set.intersection(*[set(other.fixed) for other in others])
    pairs = [(key, value) for key, value in run.fixed if (key, value) not in shared and key not in RESOLUTIONS]
    return " ".join(f"{key}={value}" for key, value in pairs)


def repetition(run: Run) -> Hashable:
    """Seed and test set; the fingerprint of the data would tell resolutions of the same images apart."""
    tested = run.held_out
    return (run.record.get("seed"), run.record.get("data_fingerprint") if tested is None else tuple(sorted(tested.ids)))


def read_report(path: Path) -> dict[str, Any]:
    """The roles of the report of a run on images.

    Raises:
        UserError: damaged, or without the resolution, the cost or the intervals of a role.
    """
    roles = read_json(path).get("roles")
    whole = isinstance(roles, dict) and all(is_role(role) for role in roles.values())
    if not (whole and roles):
        raise UserError(f"{path} is damaged: it must hold downsample, cost and intervals of each role")
    return roles


def is_role(role: Any) -> bool:
    """Whether a report says of a role what the frontier needs."""
    if not isinstance(role, dict) or not is_number(role.get("downsample")) or role["downsample"] <= 0:
        return False
    tables = [role.get("cost"), *(role[name] for name in ("plain", "balanced") if name in role)]
    if not all(isinstance(table, dict) for table in tables):
        return False
    intervals = [score for table in tables[1:] for score in table.values()]
    return all(value is None or is_number(value) for value in tables[0].values()) and all(map(is_interval, intervals))


def is_interval(score: Any) -> bool:
    """Whether it has a mean and its bounds, numbers or undefined all three."""
    values = [score.get(name, "missing") for name in ("mean", "low", "high")] if isinstance(score, dict) else ["none"]
    return all(value is None for value in values) or all(map(is_number, values))


def is_number(value: Any) -> bool:
    """Whether JSON holds a number there, and no truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool)
