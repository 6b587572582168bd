"""Every file in conf/data names a class and arguments that exist, and its defaults are those of the class."""

import inspect
from pathlib import Path

import pytest
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf

from kd_mil.data.distillation_data import DistillationData
from tests.support.configs import compose_run

FILES = sorted((Path(__file__).parents[2] / "conf" / "data").glob("*.yaml"))
SURROUNDINGS = {
    "paths": {"data_dir": "data", "cache_dir": "cache"},
    "loading": {"_target_": "kd_mil.data.datamodules.Loading", "limit_batches": None, "limit_bags": None},
    "tiling": {"_target_": "kd_mil.slides.tiles.tiling.TilingSettings", "magnification": 20},
    "tissue": {"_target_": "kd_mil.slides.tiles.tissue.TissueSettings"},
}

SHARED = {"loading", "data_dir", "cache_dir", "annotations", "limit_batches", "limit_images"}
"""Arguments that take their values from elsewhere in the configuration."""


def bases(config: DictConfig) -> list[str]:
    """Files below conf/data that a file inherits from; the rest of its defaults list sets other groups."""
    defaults = [item for item in config.get("defaults", []) if isinstance(item, str)]
    return [item.removesuffix("@_here_") for item in defaults if item.endswith("@_here_")]


def read(path: Path) -> DictConfig:
    """The file with what it inherits."""
    config = OmegaConf.load(path)
    inherited = [read(path.parent / f"{name}.yaml") for name in bases(config)]
    config.pop("defaults", None)
    return OmegaConf.merge(*inherited, config)


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


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_sets_of_pairs_say_only_how_they_differ_from_their_base(path):
    config = OmegaConf.load(path)
    if ".pairs." not in config["_target_"]:
        assert not bases(config)
        return
    assert bases(config) == ["base/pairs"]
    base = OmegaConf.load(path.parent / "base" / "pairs.yaml")
    repeated = {name for name in config.keys() & base.keys() if config._get_node(name) == base._get_node(name)}
    assert not repeated


FEATURE_SETS = [path.stem for path in FILES if ".data.features." in OmegaConf.load(path)["_target_"]]


@pytest.mark.parametrize("name", FEATURE_SETS)
@pytest.mark.parametrize("experiment", ["weno_dsmil", "mil_gated_abmil"])
def test_features_choose_their_encoder_and_preprocessing(name, experiment):
    config = compose_run(f"experiment={experiment}", f"data={name}")
    explicit = compose_run(f"experiment={experiment}", f"data={name}", "encoder=features", "preprocess=features")
    assert config.encoder == explicit.encoder
    assert config.preprocess == explicit.preprocess
    assert config.encoder["_target_"].endswith("FeatureProjector")


def test_users_may_still_choose_another_encoder():
    assert len(FEATURE_SETS) == 3
    config = compose_run("data=feature_bags", "encoder=identity", "preprocess=unit_interval")
    assert config.encoder["_target_"].endswith("Identity")
    assert config.preprocess["standardise"] is False
    assert compose_run("data=digits_mil").encoder["_target_"].endswith("SmallCNN")
