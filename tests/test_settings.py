"""Wrong kinds of values are found before anything is built; presets are what they say."""

from functools import partial

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from kd_mil.cluster import Slurm
from kd_mil.errors import UserError
from kd_mil.scaling import scaled
from kd_mil.settings import check_settings
from tests.test_configs import EXPERIMENTS, compose_run


def plain(*overrides):
    config = OmegaConf.to_container(compose_run(*overrides), resolve=True)
    config.pop("hydra")
    return config


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_what_is_shipped_is_of_the_right_kind(experiment):
    check_settings(plain(f"experiment={experiment}"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.positive_ratio=abc", "data.positive_ratio=abc: must be a number"),
        ("data.seed=1.5", "data.seed=1.5: must be an integer"),
        ("bags_per_step=two", "bags_per_step=two: must be an integer"),
        ("trainer.max_epochs=x", "trainer.max_epochs=x: must be an integer or null"),
        ("loading.balance_ranks=1", "balance_ranks=1: must be true or false"),
        ("method.gradient_clip=high", "method.gradient_clip=high: must be a number or null"),
    ],
)
def test_a_value_of_the_wrong_kind_is_named(override, message):
    with pytest.raises(UserError, match=message):
        check_settings(plain("data=digits_mil", override))


def test_arguments_passed_up_to_a_base_class_are_checked_there():
    """`positive_ratio` is an argument of BuiltBags, which DigitsMIL hands on as **settings."""
    node = {"_target_": "kd_mil.data.digits.DigitsMIL", "bag_length": "ten"}
    with pytest.raises(UserError, match=r"data\.bag_length=ten"):
        check_settings({"data": node})


def test_what_cannot_be_imported_is_left_to_those_who_build_it():
    check_settings({"aggregator": {"_target_": "no.such.Thing", "size": "x"}})


@pytest.mark.parametrize("preset", ["cpu", "auto", "ddp", "ddp_cpu"])
def test_trainer_presets_never_pad_evaluation(preset):
    trainer = plain(f"trainer={preset}")["trainer"]
    assert trainer["use_distributed_sampler"] is False
    if preset.startswith("ddp"):
        assert trainer["strategy"]["timeout"] == {"_target_": "datetime.timedelta", "minutes": 30}
        assert instantiate(trainer["strategy"])._timeout.total_seconds() == 1800


def test_slurm_takes_its_shape_from_the_job(monkeypatch):
    for name, value in {"SLURM_NTASKS_PER_NODE": "4", "SLURM_NNODES": "2"}.items():
        monkeypatch.setenv(name, value)
    trainer = plain("trainer=slurm")["trainer"]
    assert (trainer["devices"], trainer["num_nodes"]) == (4, 2)
    for name in ("SLURM_NTASKS", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match="inside `srun` only"):
        Slurm()


@pytest.mark.parametrize("preset", ["one_batch", "overfit", "profiler"])
def test_debug_presets_build(preset, tmp_path):
    config = compose_run("experiment=weno_abmil", "trainer=cpu", f"debug={preset}", run_dir=str(tmp_path))
    trainer = instantiate(config.trainer, _convert_="all", logger=False, enable_checkpointing=False)
    assert trainer.max_epochs in (1, 2, 60)
    check_settings(plain("experiment=weno_abmil", f"debug={preset}"))


@pytest.mark.parametrize(("rule", "rate"), [("none", 0.1), ("sqrt", 0.2), ("linear", 0.4)])
def test_learning_rates_follow_the_number_of_processes(rule, rate):
    make = scaled(partial(torch.optim.SGD, lr=0.1), rule, processes=4)
    assert make([torch.nn.Parameter(torch.zeros(1))]).param_groups[0]["lr"] == pytest.approx(rate)


def test_an_unknown_rule_is_refused():
    with pytest.raises(UserError, match="scale_lr=cubic: choose none, sqrt, linear"):
        scaled(partial(torch.optim.SGD, lr=0.1), "cubic", processes=1)
