"""Experiments that only name an aggregator need no file, and mean what the group override means."""

import pytest
from omegaconf import OmegaConf

from kd_mil.cli.command import CONFIG_DIR
from kd_mil.cli.experiments import METHODS, NEED_MORE, named_by_rule
from tests.support.configs import compose_run


def plain(*overrides):
    config = OmegaConf.to_container(compose_run(*overrides), resolve=False)
    for key in ("hydra", "experiment_name"):
        config.pop(key)
    return config


@pytest.mark.parametrize("name", ["weno_abmil", "mil_clam_mb", "mil_mean", "mhim_transmil"])
def test_a_name_of_method_and_aggregator_is_the_two_settings(name):
    method, _, aggregator = name.partition("_")
    assert plain(f"experiment={name}") == plain(f"experiment={method}", f"aggregator={aggregator}")


@pytest.mark.parametrize("method", METHODS)
def test_every_aggregator_has_a_name_with_every_method(method):
    aggregators = {path.stem for path in (CONFIG_DIR / "aggregator").glob("*.yaml")}
    files = {path.stem for path in (CONFIG_DIR / "experiment").glob("*.yaml")}
    by_rule = {name for name, *_ in named_by_rule(CONFIG_DIR)}
    wanted = {name for name in aggregators - NEED_MORE if not name.endswith("_released")}
    wanted -= {"mean"} if method == "weno" else set()
    assert {f"{method}_{aggregator}" for aggregator in wanted} <= by_rule | files
    assert not by_rule & files, "a file comes first"


def test_the_run_is_called_by_the_name_that_was_typed():
    assert compose_run("experiment=weno_abmil").experiment_name == "weno_abmil"
    assert compose_run("experiment=weno", "aggregator=abmil").experiment_name == "weno"


def test_dsmil_alone_and_as_a_teacher_train_on_the_same_slides():
    for key in ("data", "encoder", "preprocess", "tiling", "aggregator"):
        assert plain("experiment=mil_dsmil")[key] == plain("experiment=weno_dsmil")[key]
    assert plain("experiment=mil_dsmil")["data"]["_target_"].endswith("SyntheticSlides")


@pytest.mark.parametrize("name", ["baseline", "teacher", "kd_ad", "kd_released"])
def test_experiments_of_resolution_share_optimiser_and_phases(name):
    ours, shared = plain(f"experiment=resolution_{name}"), plain("experiment=resolution_kd")
    for key in ("optimizer", "trainer", "callbacks", "encoder"):
        assert ours[key] == shared[key]
    assert ours["method"].keys() == shared["method"].keys()


@pytest.mark.parametrize("name", ["weno_dsmil", "d2l", "resolution_teacher", "resolution_kd", "ifkd_vgg"])
def test_each_paper_has_a_default_that_needs_no_download(name):
    data = plain(f"experiment={name}")["data"]
    assert not {"root", "data_dir", "manifest", "slides"} & data.keys()
