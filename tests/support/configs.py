"""Compose the configuration of a run without running it."""

import copy
import functools

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from kd_mil.cli.command import CONFIG_DIR
from kd_mil.cli.resolvers import register_resolvers

EXPERIMENTS = sorted(
    [*(path.stem for path in (CONFIG_DIR / "experiment").glob("*.yaml")), "weno_clam_sb", "mil_abmil", "mhim_abmil"]
)


def compose_run(*overrides, run_dir="runs/test"):
    """The configuration of `kd_mil.run`; a copy where it was composed before."""
    config = copy.deepcopy(_composed(*overrides, f"hydra.runtime.output_dir={run_dir}"))
    HydraConfig.instance().set_config(config)
    return config


@functools.cache
def _composed(*overrides):
    register_resolvers()
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return compose("run", overrides=list(overrides), return_hydra_config=True)


def compose_extract(*overrides):
    """The configuration of `kd_mil.extract`."""
    register_resolvers()
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return compose("extract", overrides=list(overrides))


def method_of(experiment):
    """Name of the method that an experiment chooses, by its file and those that it starts from."""
    path = CONFIG_DIR / "experiment" / f"{experiment}.yaml"
    if not path.is_file():  # METHOD_AGGREGATOR, by rule
        return method_of(experiment.partition("_")[0])
    chosen = "weno"
    for entry in OmegaConf.to_container(OmegaConf.load(path)).get("defaults", []):
        if isinstance(entry, dict):
            chosen = entry.get("override /method", chosen)
        elif entry != "_self_":
            chosen = method_of(entry)
    return chosen
