"""Every file in conf/data names a class and arguments that exist, and its defaults are those of the class."""

import inspect
from pathlib import Path

import pytest
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf

from kd_mil.data.datamodules import DistillationData

FILES = sorted((Path(__file__).parents[2] / "conf" / "data").glob("*.yaml"))
SURROUNDINGS = {
    "paths": {"data_dir": "data", "cache_dir": "cache"},
    "loading": {"_target_": "kd_mil.data.datamodules.Loading", "limit_batches": None, "limit_bags": None},
    "tiling": {"_target_": "kd_mil.slides.tiles.tiling.TilingSettings", "magnification": 20},
    "tissue": {"_target_": "kd_mil.slides.tiles.tissue.TissueSettings"},
}

SHARED = {"loading", "data_dir", "cache_dir", "annotations", "limit_batches", "limit_images"}
"""Arguments that take their values from elsewhere in the configuration."""


def read(path: Path) -> DictConfig:
    """The file without its defaults list, which sets other groups."""
    config = OmegaConf.load(path)
    config.pop("defaults", None)
    return config


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_config_builds_a_data_module(path):
    config = OmegaConf.create(SURROUNDINGS | {"data": read(path)})
    assert isinstance(instantiate(config.data, _convert_="all"), DistillationData)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_defaults_of_config_and_class_agree(path):
    config = read(path)
    parameters = inspect.signature(get_class(config["_target_"])).parameters
    for name in parameters.keys() & config.keys() - SHARED:
        default, value = parameters[name].default, OmegaConf.to_container(config)[name]
        if default is not inspect.Parameter.empty:
            assert value == (list(default) if isinstance(default, tuple) else default), name
