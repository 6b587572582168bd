"""The table that a run ends with, and where to look next; without the libraries that training needs."""

import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from kd_mil.core.errors import UserError
from kd_mil.core.records import RunRecord
from kd_mil.core.run_files import read_metrics, read_record


def print_results(
    metrics: Mapping[str, float | None], directory: Path, record: Mapping[str, Any], note: str = ""
) -> None:
    """Print the test metrics by role, the epoch that was tested, and where pictures and curves are.

    Of readings of instances the areas under the ROC curve are enough. What has scores of pixels alone is no network but
    something to compare with: it stands in metrics.json and in reports. Scores that no role has, as those of instances
    without a positive label, are counted below the table.

    Args:
        metrics: of metrics.json.
        directory: of the run.
        record: its run.json.
        note: title of the table.
    """
    tests = [key.split("/", 2) for key in metrics if key.startswith("test/")]
    roles = list(dict.fromkeys(role for _, role, name in tests if not name.startswith("pixel_")))
    names = list(dict.fromkeys(key.split("/", 2)[2] for key in metrics if key.startswith("test/")))
    names = [name for name in names if "/" not in name or name.endswith(("/instance_auroc", "/instance_auroc_within"))]
    rows = {name: [printed(metrics.get(f"test/{role}/{name}")) for role in roles] for name in names}
    table = Table("test metric", *roles, title=note or None)
    for name, values in rows.items():
        if set(values) != {"nan"}:
            table.add_row(name, *values)
    console = Console(width=max(Console().width, 60))
    console.print(table)
    for line in [*undefined(rows), *tested(record), *places(directory)]:
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def printed(value: float | None) -> str:
    """A score with four digits; `nan` where it is undefined or missing."""
    return "nan" if value is None or math.isnan(value) else f"{value:.4f}"


def undefined(rows: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """How many rows have no value at all, and one of them by name."""
    names = [name for name, values in rows.items() if set(values) == {"nan"}]
    if names:
        yield f"undefined with these labels: {len(names)} scores, such as {names[0]} (null in metrics.json)"


def tested(record: Mapping[str, Any]) -> Iterator[str]:
    """Which epoch was tested, and why that one; nothing of a run of an earlier version, which does not say."""
    if record.get("tested_epoch") is not None:
        last = record.get("select") == "last"
        why = "the last" if last else f"chosen by {record.get('monitor')}"
        yield f"tested: epoch {record['tested_epoch']} of {record.get('epochs', '?')}, {why}"


def places(directory: Path) -> Iterator[str]:
    """Where the results are, the figures, and the command that shows the curves."""
    yield f"results in {directory}"
    figures = sorted(path.stem for path in (directory / "figures").rglob("*.png"))
    if figures:
        more = f" and {len(figures) - 4} more" if len(figures) > 5 else ""
        yield f"figures in {directory / 'figures'}: {', '.join(figures[:4] if more else figures)}{more}"
    if (directory / "tensorboard").is_dir():
        yield f"curves: tensorboard --logdir {shlex.quote(str(directory))}"


def show_finished(record: RunRecord, processes: int = 1) -> float | None:
    """Print what the run in the directory of the record found; its validation score.

    Raises:
        UserError: its metrics.json is missing or damaged; or other ranks wait for this one, which has nothing to do.
    """
    if processes > 1:
        raise UserError(f"another command has finished the run in {record.directory}: the same command shows its table")
    metrics = read_metrics(record.directory / "metrics.json")
    print_results(
        metrics, record.directory, read_record(record.path), note="already finished; overwrite=true runs it again"
    )
    return metrics.get(str(record.monitor))
