"""Published numbers beside ours: one line for each number, as Markdown, CSV and HTML."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from kd_mil.core.atomic import atomic_path
from kd_mil.reporting.comparison import entry_of
from kd_mil.reporting.html import TEMPLATES
from kd_mil.reporting.published.tables import Cell, PublishedTable
from kd_mil.reporting.resampling import CaseDraws
from kd_mil.reporting.runs import Point, Run, settings
from kd_mil.reporting.tables import in_cell

OF_THE_MACHINE = ("trainer", "trainer.accelerator", "trainer.devices", "loading.num_workers", "loading.resident_gib")
"""Settings of a run that change no number beyond rounding."""


class Line(NamedTuple):
    """A published number and what stands beside it."""

    table: str
    row: str
    column: str
    metric: str
    published: float | None
    ours: float | None
    difference: float | None
    """Ours less the published one."""
    seeds: int
    """Different seeds among the finished runs."""
    runs: int
    """Finished runs behind it: of every seed, and of every fold where the number is a mean over folds."""
    sd: float | None
    """Over the runs; None for fewer than two."""
    low: float | None
    """Ends of the 95 % interval of the mean over test cases."""
    high: float | None
    note: str
    """Why there is nothing, what is missing, or what runs had set beside the table's; empty where all is as it says."""


def lines_of(
    table: PublishedTable,
    cells: Sequence[Cell],
    runs: Mapping[tuple[str, ...], Run],
    missing: str,
    resamples: int,
    seed: int,
) -> list[Line]:
    """The lines of a table.

    Args:
        table: of `results.yaml`.
        cells: its numbers.
        runs: by their settings; those that are not finished are no part of a mean.
        missing: why no run of the table can be made, such as data that are not there; empty where they can.
        resamples: of the test cases.
        seed: of those.
    """
    everything = {run.directory: run.held_out for run in runs.values() if run.finished}
    draws = CaseDraws({path: known for path, known in everything.items() if known is not None}, resamples, seed)
    return [_line(table, cell, runs, missing, draws) for cell in cells]


def _line(
    table: PublishedTable, cell: Cell, runs: Mapping[tuple[str, ...], Run], missing: str, draws: CaseDraws
) -> Line:
    begin = (table.name, cell.row, cell.column, cell.metric, cell.published)
    asked = [runs.get(tuple(words)) for words in cell.runs]
    finished = [run for run in asked if run is not None and run.finished]
    if not finished:
        why = cell.no_data or missing
        faults = [run.fault for run in asked if run is not None and run.fault is not None]
        note = f"no data: {why}" if why else (f"failed: {faults[0]}" if faults else f"not run yet, {len(asked)} to go")
        return Line(*begin, None, None, 0, 0, None, None, None, notes(cell.unpublished, note))
    role, _, metric = cell.metric.partition("/")
    point = Point(cell.row, table.paper, {}, finished)
    values = point.values(f"test/{cell.metric}")
    drawn = [draws.resample(run.directory, role, metric) for run in finished]
    entry = entry_of(point, role, metric, values, drawn)
    both = entry.mean is not None and cell.published is not None
    difference = entry.mean - cell.published if both else None  # type: ignore[operator]
    undefined = "" if entry.mean is not None else f"{cell.metric} is undefined or not among the metrics"
    to_go = "" if len(finished) == len(asked) else f"{len(asked) - len(finished)} runs not finished"
    seeds = len({run.record.get("seed") for run in finished})
    counts = (seeds, len(finished), entry.sd, entry.low, entry.high)
    more = further_settings(cell, runs)
    return Line(*begin, entry.mean, difference, *counts, notes(cell.unpublished, undefined or to_go, more))


def further_settings(cell: Cell, runs: Mapping[tuple[str, ...], Run]) -> str:
    """What finished runs of a cell had set beside, or instead of, what the table says: `with trainer.max_epochs=1`."""
    found: dict[str, None] = {}
    for words in cell.runs:
        run, own = runs.get(tuple(words)), settings(words)
        if run is not None and run.finished:
            pairs = ((key, value) for key, value in run.overrides.items() if key not in OF_THE_MACHINE)
            found |= {f"{key}={value}": None for key, value in pairs if own.get(key) != value}
    return f"with {' '.join(found)}" if found else ""


def notes(*parts: str) -> str:
    """Those that say something."""
    return "; ".join(part for part in parts if part)


def shown(value: float | None, sign: str = "") -> str:
    """Three digits; a dash for None."""
    return "-" if value is None else f"{value:{sign}.3f}"


def interval_text(line: Line) -> str:
    """`[0.912, 0.951]`, or a dash."""
    return "-" if line.low is None else f"[{line.low:.3f}, {line.high:.3f}]"


HEADER = ("row", "column", "published", "ours", "difference", "seeds", "runs", "interval", "")


def cells_of(line: Line) -> tuple[str, ...]:
    """The line as text under `HEADER`."""
    spread = "" if line.sd is None else f" ± {line.sd:.3f}"
    ours = shown(line.ours) + spread
    numbers = (shown(line.published), ours, shown(line.difference, "+"))
    return (line.row, line.column, *numbers, str(line.seeds), str(line.runs), interval_text(line), line.note)


def markdown(tables: Sequence[PublishedTable], lines: Sequence[Line], scale: str) -> str:
    """A section for each table."""
    parts = []
    for table in tables:
        parts += [f"### {table.caption}", "", f"{table.source}; ours at scale={scale}.", ""]
        parts += ["| " + " | ".join(HEADER) + " |", "|" + "---|" * len(HEADER)]
        own = [line for line in lines if line.table == table.name]
        parts += ["| " + " | ".join(map(in_cell, cells_of(line))) + " |" for line in own]
        parts.append("")
    return "\n".join(parts)


def write_comparison(
    out: Path, name: str, title: str, tables: Sequence[PublishedTable], lines: Sequence[Line], scale: str
) -> None:
    """Write `NAME.md`, `NAME.csv` and `NAME.html` into a folder."""
    sections = [
        (table.caption, table.source, [cells_of(line) for line in lines if line.table == table.name])
        for table in tables
    ]
    page = TEMPLATES.get_template("published.html").render(title=title, scale=scale, header=HEADER, sections=sections)
    texts = {"md": f"# {title}\n\n{markdown(tables, lines, scale)}", "html": page}
    texts["csv"] = pd.DataFrame(lines, columns=Line._fields).to_csv(index=False)
    for kind, text in texts.items():
        with atomic_path(out / f"{name}.{kind}") as path:
            path.write_text(text, encoding="utf-8")
