"""One HTML page that needs nothing beside it: table, figures, and links to the runs.

Whatever stands in `templates/page.html` is escaped by Jinja, names of runs and points included.
"""

import base64
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from matplotlib.figure import Figure

from kd_mil.reporting.comparison import Entry
from kd_mil.reporting.html import TEMPLATES
from kd_mil.reporting.runs import Point, Run
from kd_mil.reporting.scorecards import RANKED
from kd_mil.reporting.tables import MISSING, difference_text, mean_text, shown_metrics, value_text

PICTURES = (".png", ".html", ".svg")
MOST_PICTURES = 40
"""Links to figures, and to heat maps, of one run."""


def page(
    title: str,
    rows: Sequence[Mapping[str, Any]],
    metrics: Sequence[str],
    words: Sequence[Mapping[str, Any]],
    points: Sequence[Point],
    content: Mapping[str, Any],
    figures: Mapping[str, Figure],
    notes: Mapping[str, str],
    out: Path,
) -> str:
    """The page.

    Args:
        title: heading.
        rows: of `tables.rows_of`.
        metrics: columns.
        words: of `tables.rows_of`, of the instance scorecard.
        points: with the runs to link to.
        content: of `tables.document`.
        figures: by caption.
        notes: what stands below a figure, by its caption.
        out: folder in which the page will lie; links are relative to it.
    """
    return TEMPLATES.get_template("page.html").render(
        title=title,
        results=result_table(rows, metrics),
        words=result_table(words, RANKED),
        points=len(points),
        runs=[run_row(point, run, out) for point in points for run in in_order(point.runs)],
        chosen=list(content["chosen_on_validation"].values()),
        baseline=content["baseline"],
        not_finished=[Path(name).name for name in content["not_finished"]],
        not_readable=content["not_readable"],
        copies=content["copies"],
        figures={caption: data_uri(figure) for caption, figure in figures.items()},
        notes=notes,
        pictures={
            name: found
            for point in points
            for run in in_order(point.runs)
            for name, found in pictures_of(point, run, out)
        },
        facts=facts(content),
    )


def result_table(rows: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> dict[str, Any]:
    """`metrics` that some row has, and `rows` with a cell for each."""
    shown = shown_metrics(rows, metrics)
    cells = [dict(row, cells=[metric_cell(row["entries"].get(metric)) for metric in shown]) for row in rows]
    return {"metrics": shown, "rows": cells}


def metric_cell(entry: Entry | None) -> dict[str, Any]:
    """Sorting key, mean and spread, and the lines below in small print."""
    if entry is None or entry.mean is None:
        return {"key": "-1", "text": MISSING, "lines": []}
    lines = [] if entry.low is None else [f"[{entry.low:.3f}, {entry.high:.3f}]"]
    lines += [" ".join(value_text(value) for value in entry.values)] if len(entry.values) > 1 else []
    lines += [] if entry.versus is None else [difference_text(entry.versus)]
    return {"key": f"{entry.mean:.6f}", "text": mean_text(entry), "lines": lines}


def run_row(point: Point, run: Run, out: Path) -> dict[str, Any]:
    """One run: name, seed, validation score of its checkpoint, minutes, links."""
    monitor = str(run.record.get("monitor"))
    score, seconds = run.metrics.get(monitor), run.record.get("wall_seconds")
    return {
        "point": point.name,
        "seed": seed_text(run),
        "monitor": monitor,
        "key": -1 if score is None else score,
        "score": MISSING if score is None else f"{score:.4f}",
        "minutes": MISSING if seconds is None else f"{seconds / 60:.1f}",
        "links": links(run.directory, out),
    }


def seed_text(run: Run) -> str:
    """Its seed and, where it has one, its fold."""
    fold = run.overrides.get("data.fold")
    return str(run.record.get("seed")) + ("" if fold is None else f", fold {fold}")


def in_order(runs: Sequence[Run]) -> list[Run]:
    """By seed and fold, which names of folders with a hash in them are not."""
    return sorted(runs, key=lambda run: (len(seed_text(run)), seed_text(run)))


def links(directory: Path, out: Path) -> list[tuple[str, str]]:
    """(name, URL relative to `out`) of a run's folder, metrics, pictures and heat maps."""
    found = [directory, *(directory / name for name in ("metrics.json", "bags.csv", "images.csv"))]
    for folder in ("figures", "heatmaps"):
        pictures = sorted(path for path in (directory / folder).rglob("*") if path.suffix in PICTURES)
        found += pictures[:MOST_PICTURES]
    return [
        (path.name if path != directory else "folder", quote(Path(os.path.relpath(path, out)).as_posix(), safe="/=,"))
        for path in found
        if path.exists()
    ]


def pictures_of(point: Point, run: Run, out: Path) -> list[tuple[str, list[tuple[str, str]]]]:
    """The name of a run and its figures, as (caption, URL relative to `out`); nothing for a run without any."""
    found = sorted((run.directory / "figures").rglob("*.png"))[:MOST_PICTURES]
    if not found:
        return []
    targets = [quote(Path(os.path.relpath(path, out)).as_posix(), safe="/=,") for path in found]
    name = f"{point.name}, seed {seed_text(run)} ({run.directory.name})"
    return [(name, [(path.stem, target) for path, target in zip(found, targets, strict=True)])]


def facts(content: Mapping[str, Any]) -> dict[str, str]:
    """Settings all runs share, and what they ran with."""
    lines = {
        "common settings": " ".join(f"{key}={value}" for key, value in content["common_settings"].items()) or MISSING,
        "commits": ", ".join(content["git_commits"]),
        "versions": ", ".join(f"{name} {value}" for name, value in content["versions"].items()),
        "devices": ", ".join(content["devices"]),
        "intervals resample": "; ".join(content["resampled"]) or MISSING,
    }
    if content["positive_tiles_from"]:
        areas = ", ".join(f"{100 * area:g} %" for area in content["positive_tiles_from"])
        lines["a tile is positive from"] = f"{areas} tumour area"
    return lines


def data_uri(figure: Figure) -> str:
    """The figure as a PNG inside the page."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
