"""The runs behind published tables, started or resumed as a sweep, and their numbers beside the paper's."""

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kd_mil.cli.arguments import quoted
from kd_mil.cli.resolvers import run_name
from kd_mil.core.atomic import require_writable
from kd_mil.reporting.published.compare import HEADER, cells_of, lines_of, write_comparison
from kd_mil.reporting.published.tables import PublishedTable, tables_of, title_of
from kd_mil.reporting.runs import readable_or_not
from kd_mil.sweep.points import Point, point_of
from kd_mil.sweep.processes import run_points


def main(config: DictConfig) -> None:
    """Plan, run what is missing, collect, write."""
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    out, data_dir = Path(plain["out"]), Path(plain["paths"]["data_dir"])
    require_writable(out)
    tables, scale = tables_of(plain["paper"], plain["table"]), plain["scale"]
    lacking = {table.name: missing_data(table, scale, data_dir) for table in tables}
    cells = {table.name: table.cells(scale, list(dict.fromkeys(plain["seeds"]))) for table in tables}
    wanted = [
        settings for table in tables if not lacking[table.name] for cell in cells[table.name] for settings in cell.runs
    ]
    folders = {tuple(settings): folder_of(settings, out / "runs" / scale) for settings in wanted}
    if plain["start"]:
        further = [*shlex.split(plain["settings"]), f"paths.data_dir={quoted(str(data_dir))}"]
        run_missing(folders, further, plain["parallel"], plain["attempts"])
    else:
        print(f"{len(folders)} runs belong to these tables; start=true runs those that are missing")
    runs = {settings: readable_or_not(folder) for settings, folder in folders.items()}
    lines = [
        line
        for table in tables
        for line in lines_of(table, cells[table.name], runs, lacking[table.name], plain["resamples"], plain["seed"])
    ]
    name = f"{plain['paper']}_{plain['table']}_{scale}"
    write_comparison(out, name, title_of(plain["paper"]), tables, lines, scale)
    console = Console(width=max(Console().width, 120))
    for table in tables:
        shown = Table(*HEADER, title=f"{table.caption} ({table.source})")
        for line in lines:
            if line.table == table.name:
                shown.add_row(*map(escape, cells_of(line)))
        console.print(shown)
    console.print(f"{name}.md, .csv and .html in {out.absolute()}", soft_wrap=True, highlight=False, markup=False)


def missing_data(table: PublishedTable, scale: str, data_dir: Path) -> str:
    """Which data a table lacks, in words; empty where nothing is missing."""
    needs = table.needs(scale)
    if not needs or any((data_dir / name).exists() for name in needs):
        return ""
    return f"{' or '.join(needs)} is not in {data_dir}"


def folder_of(settings: Sequence[str], root: Path) -> Path:
    """Where the run of these settings lies: tables that share a run share its folder."""
    experiment = settings[0].removeprefix("experiment=")
    return (root / experiment / run_name(list(settings))).absolute()


def run_missing(folders: dict[tuple[str, ...], Path], further: Sequence[str], parallel: int, attempts: int) -> None:
    """Start or resume what is not finished; a run that fails says so in its line of the table."""
    with own_configuration():
        points = [point([*settings, *further], folder) for settings, folder in folders.items()]
    run_points(points, parallel, attempts)


def point(settings: Sequence[str], folder: Path) -> Point:
    """The run of these settings as a point of a sweep."""
    config = compose("run", overrides=[*settings, f"hydra.run.dir={quoted(str(folder))}"], return_hydra_config=True)
    with open_dict(config):
        config.hydra.runtime.output_dir = str(folder)
        config.hydra.job.num = 0
    HydraConfig.instance().set_config(config)
    return point_of(config, config.hydra)


@contextmanager
def own_configuration() -> Iterator[None]:
    """Give the command its own configuration back, after those of its runs were composed."""
    earlier = HydraConfig.instance().cfg
    try:
        yield
    finally:
        HydraConfig.instance().cfg = earlier
