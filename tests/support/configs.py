"""Compose the configuration of a run without running it."""

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig

from kd_mil.cli.command import CONFIG_DIR
from kd_mil.cli.resolvers import register_resolvers

EXPERIMENTS = sorted(
    [*(path.stem for path in (CONFIG_DIR / "experiment").glob("*.yaml")), "weno_clam_sb", "mil_abmil", "mhim_abmil"]
)


def compose_run(*overrides, run_dir="runs/test"):
    register_resolvers()
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        config = compose("run", overrides=[f"hydra.runtime.output_dir={run_dir}", *overrides], return_hydra_config=True)
    HydraConfig.instance().set_config(config)
    return config
