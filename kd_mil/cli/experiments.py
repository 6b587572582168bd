"""Experiments that only name an aggregator: `experiment=weno_abmil` is `experiment=weno aggregator=abmil`."""

from collections.abc import Iterator
from itertools import product
from pathlib import Path

from hydra.core.config_store import ConfigStore

METHODS = ("weno", "mil", "mhim")
"""Experiments that take any aggregator."""
NEED_MORE = {"custom", "torchmil"}
"""Aggregators that need a setting of their own, so that a name alone says too little."""


def named_by_rule(config_dir: Path) -> Iterator[tuple[str, str, str]]:
    """(name, method, aggregator) of every experiment `METHOD_AGGREGATOR` that has no file of its own.

    Left out are released settings, which are whole experiments, and mean pooling, which cannot teach WENO.
    """
    aggregators = {path.stem for path in (config_dir / "aggregator").glob("*.yaml")} - NEED_MORE
    for method, aggregator in product(METHODS, sorted(aggregators)):
        has_file = (config_dir / "experiment" / f"{method}_{aggregator}.yaml").exists()
        if not has_file and not aggregator.endswith("_released") and (method, aggregator) != ("weno", "mean"):
            yield f"{method}_{aggregator}", method, aggregator


def register_experiments(config_dir: Path) -> None:
    """Give Hydra the experiments that need no file."""
    for name, method, aggregator in named_by_rule(config_dir):
        node = {"defaults": [method, {"override /aggregator": aggregator}]}
        ConfigStore.instance().store(group="experiment", name=name, node=node, package="_global_")
