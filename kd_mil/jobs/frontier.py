"""Accuracy against cost over finished runs: points, a figure, the cheapest that is good enough."""

from pathlib import Path

import pandas as pd
from omegaconf import DictConfig

from kd_mil.core.atomic import atomic_path
from kd_mil.core.checks import one_of
from kd_mil.core.run_files import write_json
from kd_mil.reporting.cost_reports import find_reports
from kd_mil.reporting.frontier import (
    COSTS,
    METRICS,
    cheapest_within,
    collect,
)
from kd_mil.reporting.frontier_view import frontier_figure, print_points


def main(config: DictConfig) -> None:
    """Collect reports, draw the figure, say which network is the cheapest that is good enough."""
    for name, choices in (("metric", METRICS), ("cost", COSTS), ("bootstrap", ("plain", "balanced"))):
        one_of(name, config[name], choices)
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
