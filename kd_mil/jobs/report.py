"""Many runs in one page and its tables.

With a baseline, experiments are paired run by run: those of the same seed and the same test bags.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kd_mil.core.atomic import atomic_path
from kd_mil.core.errors import UserError
from kd_mil.core.run_files import write_json
from kd_mil.core.suggestions import did_you_mean
from kd_mil.reporting.comparison import COST, Entry, baselines_of, compare, entries_of
from kd_mil.reporting.figures import comparison_figure, sweep_figure, swept_number
from kd_mil.reporting.hyperparameters import write_hyperparameters
from kd_mil.reporting.leaderboard import (
    leaderboard_facts,
    leaderboard_figure,
    leaderboard_table,
    leaderboard_text,
    leaderboards,
)
from kd_mil.reporting.page import page
from kd_mil.reporting.runs import Point, Run, chosen_points, find_runs, points_of
from kd_mil.reporting.scorecards import scorecard_entries
from kd_mil.reporting.tables import cell_text, document, long_table, markdown, rows_of, shown_metrics

MAIN_METRICS = (
    *("bag_auroc", "instance_auroc", "bag_accuracy", "instance_ap"),
    *("image_auroc", "image_accuracy", "image_f1", "pixel_f1", "pixel_iou"),
)
"""Columns where none are asked for: what runs on bags have, then what those on images have."""


def main(config: DictConfig) -> None:
    """Collect, compare, and write the page and its tables."""
    directories = [Path(text) for text in config.directories]
    runs = find_runs(directories)
    points = points_of([run for run in runs if run.finished])
    if not points:
        raise UserError(nothing_finished(runs, directories))
    metrics = list(MAIN_METRICS if config.metrics is None else config.metrics)
    check_metrics(metrics, points)
    chosen = chosen_points(points)
    baselines = {} if config.baseline is None else baselines_of(points, config.baseline)
    entries = entries_of(points, metrics, config.resamples, config.seed)
    compare(entries, points, baselines)
    scorecard = scorecard_entries(points, config.resamples, config.seed)

    out = Path(config.out) if config.out else directories[0] / "report"
    rows = rows_of(entries, chosen)
    compared_with = {point.name for point in baselines.values()}
    baseline = compared_with.pop() if len(compared_with) == 1 else config.baseline
    content = document(points, runs, entries, chosen, baseline)
    boards = {f"Leaderboard: {board.metric}": board for board in leaderboards(points, metrics)}
    content["leaderboards"] = {board.metric: leaderboard_facts(board) for board in boards.values()}
    figures = figures_of(points, entries, chosen, metrics, config.x)
    figures |= {caption: leaderboard_figure(board) for caption, board in boards.items()}
    notes = {caption: leaderboard_text(board) for caption, board in boards.items()}
    title = f"kd_mil: {', '.join(dict.fromkeys(point.experiment for point in points))}"
    words = rows_of(scorecard, chosen)
    whole = page(title, rows, metrics, words, points, content, figures, notes, out.resolve())
    write_text(out / "report.html", whole)
    write_text(out / "report.md", markdown(rows, metrics) + "\n")
    write_text(out / "report.csv", long_table(entries).to_csv(index=False))
    if scorecard:
        write_text(out / "scorecard.csv", long_table(scorecard).to_csv(index=False))
    write_json(out / "report.json", content)
    for board in boards.values():
        write_text(
            out / f"leaderboard_{board.metric.replace('/', '_')}.csv", leaderboard_table(board).to_csv(index=False)
        )
    for caption, figure in figures.items():
        name = re.sub(r"[^a-z0-9]+", "_", caption.lower())
        with atomic_path(out / f"{name}.png") as path:
            figure.savefig(path, dpi=110, format="png")
    write_hyperparameters(out / "tensorboard", points)
    print_table(rows, metrics, out)
    print_left_out(content)


def nothing_finished(runs: Sequence[Run], directories: Sequence[Path]) -> str:
    """Why there is nothing to report."""
    faults = [run.fault for run in runs if run.fault is not None]
    reason = f"; not readable: {faults[0]}" if faults else ""
    return f"none of the {len(runs)} runs under {', '.join(map(str, directories))} is finished{reason}"


def check_metrics(metrics: Sequence[str], points: Sequence[Point]) -> None:
    """Refuse columns of which no run has a value.

    Raises:
        UserError: an unknown metric, or none at all.
    """
    keys = {key for point in points for run in point.runs for key in run.metrics}
    known = sorted(
        {key.split("/", 2)[2] for key in keys if key.startswith("test/")}
        | {key for key in keys if key.startswith(COST)}
    )
    for metric in metrics:
        if metric not in known and metric not in MAIN_METRICS:
            raise UserError(f"metrics: no run has {metric!r}; {did_you_mean(metric, known)}")
    if not set(metrics) & set(known):
        raise UserError(f"metrics: no run has any of {', '.join(metrics)}; known: {', '.join(known)}")


def figures_of(
    points: Sequence[Point],
    entries: Sequence[Entry],
    chosen: dict[str, str],
    metrics: Sequence[str],
    wanted: str | None,
) -> dict[str, Figure]:
    """By caption: the sweep over a number, if there is one, and the test results in each metric.

    Raises:
        UserError: `wanted` is no number that differs between the points.
    """
    x = swept_number(points, wanted)
    if wanted is not None and x is None:
        raise UserError(f"x={wanted}: no number that differs between the points")
    figures = {} if x is None else {f"Choosing {x}": sweep_figure(points, x, chosen)}
    for metric in metrics:
        if any(entry.metric == metric for entry in entries):
            figures[f"Test: {metric}"] = comparison_figure(entries, metric, chosen)
    return figures


def write_text(path: Path, text: str) -> None:
    """Write a whole file or none."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def print_table(rows: Sequence[dict], metrics: Sequence[str], out: Path) -> None:
    """The table people see at once; validation's choice with a star."""
    shown = shown_metrics(rows, metrics)
    table = Table("", "point", "role", "runs", *shown)
    for row in rows:
        cells = [cell_text(row["entries"].get(metric), all_values=False) for metric in shown]
        table.add_row(*map(escape, ["*" if row["chosen"] else "", row["point"], row["role"], str(row["runs"]), *cells]))
    console = Console(width=max(Console().width, 120))
    console.print(table)
    console.print(f"report in {out / 'report.html'}", soft_wrap=True, highlight=False, markup=False)


def print_left_out(content: dict) -> None:
    """Runs that do not count, each on a line with the reason."""
    for fault in content["not_readable"]:
        print(f"left out: {fault}")
    for directory in content["copies"]:
        print(f"counted once: {directory} repeats seed and data of another run of its point")
