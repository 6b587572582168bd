"""The configuration of a run, as its folder keeps it in `.hydra/`."""

from collections.abc import Mapping
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from kd_mil.core.atomic import atomic_path

FOLDER = ".hydra"


def configuration_files(config: DictConfig) -> dict[str, str]:
    """Names and texts of what Hydra would write as soon as it is called, before a run may change its folder."""
    hydra = HydraConfig.get()
    return {
        "config.yaml": OmegaConf.to_yaml(config),
        "hydra.yaml": OmegaConf.to_yaml(OmegaConf.create({"hydra": hydra})),
        "overrides.yaml": OmegaConf.to_yaml(hydra.overrides.task),
    }


def write_configuration(directory: Path, files: Mapping[str, str]) -> None:
    """Write them into `directory/.hydra`, each whole or not at all."""
    for name, text in files.items():
        with atomic_path(directory / FOLDER / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
