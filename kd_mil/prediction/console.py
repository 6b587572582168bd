"""What `kd_mil.predict` prints: warnings beside the progress bars, and a table of the slides at the end."""

import math
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table
from tqdm import tqdm

MOST_ROWS = 40
"""Slides in the table; all are in `slides.csv`."""


@contextmanager
def one_line_warnings() -> Iterator[None]:
    """Print each warning as one line that leaves progress bars whole."""

    def say(message: Warning | str, *_: Any) -> None:
        tqdm.write(f"warning: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = say  # type: ignore[assignment]
        yield


def print_results(rows: Sequence[Mapping[str, Any]], out: Path) -> None:
    """A table of the slides, of many only the first, and the slides without a prediction."""
    if not rows:
        print("no slide belongs to this shard")
        return
    columns = [name for name in dict.fromkeys(key for row in rows for key in row) if not name.endswith("_threshold")]
    columns.remove("note")
    table = Table(*(Column(name.replace("_", " "), overflow="fold") for name in columns))
    predicted = [row for row in rows if not row["note"]]
    for row in predicted[:MOST_ROWS]:
        table.add_row(*(escape(cell(row.get(name))) for name in columns))
    console = Console(width=max(Console().width, 60))
    console.print(table)
    lines = [f"without prediction: {row['slide_id']}: {row['note']}" for row in rows if row["note"]]
    if len(predicted) > MOST_ROWS:
        lines.insert(0, f"and {len(predicted) - MOST_ROWS} more slides in slides.csv")
    for line in [*lines, f"predictions in {out.absolute()}"]:
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def cell(value: Any) -> str:
    """A value as the table shows it; empty for None and NaN."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)
