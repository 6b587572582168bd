"""The table that a run ends with, and where to look next."""

import math
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def print_results(
    metrics: Mapping[str, float | None], directory: Path, record: Mapping[str, Any], note: str = ""
) -> None:
    """Print the test metrics by role, the epoch that was tested, and where pictures and curves are.

    Args:
        metrics: of metrics.json.
        directory: of the run.
        record: its run.json.
        note: title of the table.
    """
    roles = list(dict.fromkeys(key.split("/")[1] for key in metrics if key.startswith("test/")))
    names = list(dict.fromkeys(key.split("/")[2] for key in metrics if key.startswith("test/")))
    table = Table("test metric", *roles, title=note or None)
    for name in names:
        values = [metrics.get(f"test/{role}/{name}") for role in roles]
        table.add_row(name, *("nan" if value is None or math.isnan(value) else f"{value:.4f}" for value in values))
    console = Console(width=max(Console().width, 60))
    console.print(table)
    for line in [*tested(record), *places(directory)]:
        console.print(line, soft_wrap=True, highlight=False, markup=False)


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
