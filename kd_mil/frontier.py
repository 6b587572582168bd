"""Accuracy against cost over finished runs: `python -m kd_mil.frontier runs=PATTERN [key=value ...]`."""

import sys
from pathlib import Path

import pandas as pd
from omegaconf import DictConfig

from kd_mil.cli.arguments import with_quoted_values
from kd_mil.cli.command import command
from kd_mil.core.atomic import atomic_path
from kd_mil.core.checks import one_of
from kd_mil.core.errors import UserError
from kd_mil.core.records import write_json
from kd_mil.reporting.frontier import (
    COSTS,
    METRICS,
    cheapest_within,
    collect,
    find_reports,
    frontier_figure,
    print_points,
)


@command("frontier")
def main(config: DictConfig) -> None:
    """Collect reports, draw the figure, say which student is the cheapest that is good enough."""
    for name, choices in (("metric", METRICS), ("cost", COSTS), ("bootstrap", ("plain", "balanced"))):
        one_of(name, config[name], choices)
    if not 0 <= config.within < 100:
        raise UserError(f"within={config.within}: percent of the teacher's score, it must lie in [0, 100)")
    points = collect(find_reports(config.runs), config.metric, config.cost, config.bootstrap)
    cheapest = cheapest_within(points, config.within)
    out = Path(config.out)
    figure = frontier_figure(points, config.metric, config.cost, config.within)
    with atomic_path(out / "frontier.png") as path:
        figure.savefig(path, format="png", dpi=150)
    with atomic_path(out / "frontier.csv") as path:
        pd.DataFrame(points).to_csv(path, index=False)
    answer = None if cheapest is None else cheapest._asdict()
    write_json(out / "frontier.json", {"within_percent": config.within, "metric": config.metric, "cheapest": answer})
    print_points(points, cheapest, config.within, config.metric, config.cost, out)


def start() -> None:
    """The command line."""
    sys.argv[1:] = with_quoted_values(sys.argv[1:], ("runs", "out"))
    main()


if __name__ == "__main__":
    start()
