"""Experiments that only name an aggregator: `experiment=weno_abmil` is `experiment=weno aggregator=abmil`."""

from collections.abc import Iterator
from itertools import product
from pathlib import Path

from hydra.core.config_store import ConfigStore

METHODS = ("weno", "mil", "mhim")
"""Experiments that take any aggregator."""


def named_by_rule(config_dir: Path) -> Iterator[tuple[str, str, str]]:
    """(name, method, aggregator) of every experiment `METHOD_AGGREGATOR` that has no file of its own."""
    aggregators = sorted(path.stem for path in (config_dir / "aggregator").glob("*.yaml"))
    for method, aggregator in product(METHODS, aggregators):
        if not (config_dir / "experiment" / f"{method}_{aggregator}.yaml").exists():
            yield f"{method}_{aggregator}", method, aggregator


def register_experiments(config_dir: Path) -> None:
    """Give Hydra the experiments that need no file."""
    for name, method, aggregator in named_by_rule(config_dir):
        node = {"defaults": [method, {"override /aggregator": aggregator}]}
        ConfigStore.instance().store(group="experiment", name=name, node=node, package="_global_")
