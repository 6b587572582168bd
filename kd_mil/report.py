"""Many runs in one table: `python -m kd_mil.report RUNS [RUNS ...] [baseline=EXPERIMENT] [out=FOLDER]`."""

import sys
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table
from torch.utils.tensorboard import SummaryWriter

from kd_mil.cli.command import CONFIG_DIR, command
from kd_mil.core.atomic import atomic_path
from kd_mil.core.checks import at_least
from kd_mil.core.errors import UserError
from kd_mil.core.records import write_json
from kd_mil.reporting.comparison import baseline_point, compare, entries_of
from kd_mil.reporting.figures import comparison_figure, sweep_figure, swept_number
from kd_mil.reporting.page import page
from kd_mil.reporting.runs import Point, chosen_points, find_runs, points_of
from kd_mil.reporting.tables import cell, document, long_table, markdown, rows_of

NAMES = ("baseline", "out", "x")


@command("report")
def main(config: DictConfig) -> None:
    """Collect, compare, and write the page and its tables."""
    directories = [Path(text) for text in config.directories]
    if not directories:
        raise UserError("no folder given: python -m kd_mil.report RUNS")
    at_least("resamples", config.resamples, 1)
    runs = find_runs(directories)
    points = points_of([run for run in runs if run.finished])
    if not points:
        raise UserError(f"none of the {len(runs)} runs under {', '.join(map(str, directories))} is finished")
    chosen = chosen_points(points)
    entries = entries_of(points, config.metrics, config.resamples, config.seed)
    baseline = None if config.baseline is None else baseline_point(points, config.baseline)
    if baseline is not None:
        compare(entries, points, baseline)

    out = Path(config.out) if config.out else directories[0] / "report"
    rows, metrics = rows_of(entries, chosen), list(config.metrics)
    content = document(points, runs, entries, chosen, baseline and baseline.name)
    figures: dict[str, Figure] = {}
    x = swept_number(points, config.x)
    if config.x is not None and x is None:
        raise UserError(f"x={config.x}: no number that differs between the points")
    if x is not None:
        figures[f"Choosing {x}"] = sweep_figure(points, x, chosen)
    for metric in metrics:
        if any(one.metric == metric for one in entries):
            figures[f"Test: {metric}"] = comparison_figure(entries, metric, chosen)
    title = f"kd_mil: {', '.join(dict.fromkeys(point.experiment for point in points))}"
    write_text(out / "report.html", page(title, rows, metrics, points, content, figures, out.resolve()))
    write_text(out / "report.md", markdown(rows, metrics) + "\n")
    write_text(out / "report.csv", long_table(entries).to_csv(index=False))
    write_json(out / "report.json", content)
    for caption, figure in figures.items():
        name = caption.lower().replace(": ", "_").replace(" ", "_").replace(".", "_")
        with atomic_path(out / f"{name}.png") as path:
            figure.savefig(path, dpi=110, format="png")
    write_hyperparameters(out / "tensorboard", points)
    print_table(rows, metrics, out)


def write_text(path: Path, text: str) -> None:
    """Write a whole file or none."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_hyperparameters(directory: Path, points: Sequence[Point]) -> None:
    """What TensorBoard's HPARAMS page shows: the settings in which points differ, and all metrics of each run."""
    for point in points:
        for run in point.runs:
            known = {f"hp/{key}": value for key, value in run.metrics.items() if value is not None}
            name = f"{point.name} seed={run.record.get('seed')}".replace("/", "_")
            own = directory / f"{name} {str(run.record.get('data_fingerprint'))[:8]}"
            if own.exists():
                continue
            settings = {"experiment": point.experiment, "seed": run.record.get("seed")} | point.settings
            with SummaryWriter(str(own)) as writer:
                writer.add_hparams(settings, known, run_name=".")


def print_table(rows: Sequence[dict], metrics: Sequence[str], out: Path) -> None:
    """The table people see at once; validation's choice with a star."""
    shown = [metric for metric in metrics if any(metric in row["entries"] for row in rows)]
    table = Table("", "point", "role", "runs", *shown)
    for row in rows:
        cells = [cell(row["entries"].get(metric), all_values=False) for metric in shown]
        table.add_row("*" if row["chosen"] else "", row["point"], row["role"], str(row["runs"]), *cells)
    console = Console(width=max(Console().width, 120))
    console.print(table)
    console.print(f"report in {out / 'report.html'}", soft_wrap=True, highlight=False)


def with_directories(arguments: Sequence[str]) -> list[str]:
    """Command line with the folders, which stand by themselves, as one setting.

    Names of folders and of points may hold `=` and spaces, which Hydra takes in quotes only.
    """
    keys = {str(key) for key in OmegaConf.load(CONFIG_DIR / "report.yaml")}
    ours = [text for text in arguments if text.startswith("-") or text.split("=")[0].split(".")[0] in keys]
    folders = [text for text in arguments if text not in ours]
    ours = [
        f"{key}={quoted(value)}" if key in NAMES else text for text in ours for key, _, value in [text.partition("=")]
    ]
    return [*ours, f"directories=[{','.join(map(quoted, folders))}]"] if folders else ours


def quoted(text: str) -> str:
    """In quotes, as Hydra reads them; unchanged where it is so already."""
    if text[:1] == text[-1:] and text[:1] in ("'", '"'):
        return text
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


if __name__ == "__main__":
    sys.argv[1:] = with_directories(sys.argv[1:])
    main()
