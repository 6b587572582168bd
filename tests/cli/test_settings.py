"""Wrong values are found before anything is built; presets are what they say."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pytest
from hydra.utils import instantiate
from lightning.pytorch import Callback
from omegaconf import OmegaConf

from kd_mil.cli.command import CONFIG_DIR
from kd_mil.cli.expected import EXPECTED, check_seeds, check_types
from kd_mil.cli.settings import check_settings, check_value, choices_of, constructor_hints, union_members
from kd_mil.core.errors import UserError
from kd_mil.jobs.before_training import choose_monitor
from kd_mil.jobs.run import OF_THE_PROCESS, shorten_phases
from kd_mil.training.slurm import Slurm
from tests.support.configs import EXPERIMENTS, compose_run
from tests.support.tiny_images import write_pictures


def plain(*overrides):
    config = OmegaConf.to_container(compose_run(*overrides), resolve=True)
    config.pop("hydra")
    return config


@pytest.mark.parametrize("command", EXPECTED)
def test_the_plain_settings_of_every_command_have_a_type_and_defaults_that_fit(command):
    content = OmegaConf.load(CONFIG_DIR / f"{command}.yaml")
    written = OmegaConf.to_container(content)
    names = {name for name, value in written.items() if not isinstance(value, dict)} - {"defaults", "run_dir"}
    assert names == set(EXPECTED[command])
    if command != "run":  # whose defaults every run of the tests checks
        check_types(command, OmegaConf.to_container(OmegaConf.masked_copy(content, [*names]), resolve=True))


@pytest.mark.parametrize(
    ("command", "name", "value"),
    [("extract", "num_workers", "few"), ("extract", "precision", "half"), ("predict", "trust", "perhaps"),
     ("extract", "wait", "maybe"), ("extract", "gpus", 1.5), ("extract", "cache_gib", "much"),
     ("report", "metrics", 3), ("export", "classes", "tumour"), ("segment", "scale", "big"), ("run", "monitor", 3)],
)  # fmt: skip
def test_a_plain_setting_of_another_kind_is_one_line(command, name, value):
    with pytest.raises(UserError, match=f"^{name}={value}: "):
        check_value(name, value, EXPECTED[command][name])


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"seed": -1}, "seed=-1"),
        ({"data": {"seed": 2**32}}, "data.seed=4294967296"),
        ({"a": {"b": {"seed": -4}}}, "a.b.seed=-4"),
    ],
)
def test_a_seed_out_of_range_is_named_wherever_it_stands(given, name):
    check_seeds({"seed": 0, "data": {"seed": 2**32 - 1, "other": -1}, "method": {"seed": None}})
    with pytest.raises(UserError, match=rf"^{name}: must lie in \[0, 2\*\*32\)$"):
        check_seeds(given)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_are_finite(value):
    for hint in (float, float | None, float | Literal["auto"]):
        with pytest.raises(UserError, match=f"x={value}: must be a finite number"):
            check_value("x", value, hint)


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
        ("preprocess.augment=1", "preprocess.augment=1: must be true or false"),
        ("method.gradient_clip=high", "method.gradient_clip=high: must be a number or null"),
        ("data.positive_ratio=null", "data.positive_ratio=null: must be a number"),
        ("data.positive_classes=9", r"data.positive_classes=9: must be a list \[a,b\]"),
    ],
)
def test_a_value_of_the_wrong_kind_is_named(override, message):
    with pytest.raises(UserError, match=message):
        check_settings(plain("data=digits_mil", override))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+method.warmup=3", "method.warmup: WENO takes no such setting; known: "),
        ("+method.sed=3", "did you mean 'seed'"),
        ("+aggregator.hiden=3", "aggregator.hiden: ABMIL takes no such setting; .*did you mean 'hidden'"),
        ("+data.bag_len=3", "data.bag_len: DigitsMIL takes no such setting; .*did you mean 'bag_length'"),
        ("+trainer.max_epoch=3", "trainer.max_epoch: Trainer takes no such setting; .*did you mean 'max_epochs'"),
        ("+optimizer.learning=3", "optimizer.learning: AdamW takes no such setting"),
        ("+callbacks.decay.every=3", "callbacks.decay.every: LearningRateDecay takes no such setting"),
    ],
)
def test_what_no_constructor_takes_is_refused_before_anything_is_built(override, message):
    """Those of a method and its parts are called after data are read, where it would be a traceback."""
    with pytest.raises(UserError, match=message):
        check_settings(plain(override))


def test_arguments_passed_up_to_a_base_class_are_checked_there():
    """`positive_ratio` is an argument of BuiltBags, which DigitsMIL hands on as **settings."""
    node = {"_target_": "kd_mil.data.patches.digits_mil.DigitsMIL", "bag_length": "ten"}
    with pytest.raises(UserError, match=r"data\.bag_length=ten"):
        check_settings({"data": node})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["hpm.mode=treshold"], "hpm.mode=treshold: choose off, threshold or top_fraction, did you mean 'threshold'?"),
        (["method.attention_from=x"], "method.attention_from=x: choose bank or recompute"),
        (
            ["method=distill_to_label", "method.kd.reduction=meen"],
            "method.kd.reduction=meen: choose sum or mean, did you mean 'mean'?",
        ),
        (
            ["method=resolution", "method.loss.resize=[maxpool,bicubicc]"],
            "method.loss.resize.1=bicubicc: choose maxpool or bicubic, did you mean 'bicubic'?",
        ),
        (["method=resolution", "method.finetune=null"], "method.finetune=null: choose auto, on or off"),
        (["data=digits_mil", "encoder.channels=[8,wide]"], "encoder.channels.1=wide: must be an integer"),
    ],
)
def test_a_word_that_is_no_choice_is_named_with_the_choices(overrides, message):
    with pytest.raises(UserError) as caught:
        check_settings(plain(*overrides))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("hint", "accepted", "refused", "message"),
    [
        (int | Literal["auto"], [4, "auto"], "many", "x=many: must be an integer or auto"),
        (int | Literal["auto"], [], True, "x=true: must be an integer or auto"),
        (Literal["a", "b"] | None, ["a", None], "c", "x=c: choose a, b or null"),
        (Literal[1, 2], [1], True, "x=true: must be 1 or 2"),
        (Sequence[float] | None, [[1, 2.5], [], None], 3, "x=3: must be a list [a,b] or null"),
        (Sequence[float], [], [1, None], "x.1=null: must be a number"),
        (list, [[1, "a"]], "a", "x=a: must be a list [a,b]"),
        (float, [1, 0.5], None, "x=null: must be a number"),
    ],
)
def test_unions_of_types_and_words(hint, accepted, refused, message):
    for value in accepted:
        check_value("x", value, hint)
    with pytest.raises(UserError) as caught:
        check_value("x", refused, hint)
    assert str(caught.value) == message


def choices_within(node, path=""):
    """(path, target, argument) of every argument of a configuration that its class restricts to words."""
    hints = constructor_hints(node["_target_"]) if "_target_" in node else {}
    for key, value in node.items():
        place = f"{path}.{key}" if path else key
        kinds = union_members(hints.get(key))
        if any(choices_of(kind) for kind in kinds if kind is not type(None)):
            yield place, node["_target_"], key
        if isinstance(value, dict):
            yield from choices_within(value, place)


def each_file_of(*groups):
    """Settings of as few runs as have each file of these groups in one of them."""
    names = {group: sorted(path.stem for path in (CONFIG_DIR / group).glob("*.yaml")) for group in groups}
    for number in range(max(map(len, names.values()))):
        yield plain(*(f"{group}={own[number % len(own)]}" for group, own in names.items()))


def test_every_choice_of_what_is_shipped_is_checked():
    checked = {}
    for settings in each_file_of("aggregator", "encoder", "student_head", "method", "hpm", "reading", "data"):
        for place, target, key in choices_within(settings):
            if (target, key) not in checked:
                checked[target, key] = place
                with pytest.raises(UserError, match=f"{key}=nonsense: choose .*"):
                    check_settings({place: {"_target_": target, key: "nonsense"}})
    assert {place.partition(".")[0] for place in checked.values()} >= {"aggregator", "encoder", "method", "hpm", "data"}


def test_what_a_configuration_cannot_spell_is_left_alone():
    for value in (3, "text", None, [1]):
        check_value("x", value, Path | int)


def test_what_cannot_be_imported_is_left_to_those_who_build_it():
    check_settings({"aggregator": {"_target_": "no.such.Thing", "size": "x"}})


@pytest.mark.parametrize("preset", ["cpu", "auto", "gpu", "bf16", "ddp", "ddp_cpu"])
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


ONE_OF_EACH_METHOD = [
    *("mil_abmil", "mhim_abmil", "rnn_mil", "supervised", "sela_mil", "ins"),
    *("weno_abmil", "weno_multiclass", "d2l_colon"),
    *("ifkd_vgg", "ifkd_vgg_released", "cam_baseline", "unet_supervised", "oaa_style", "oeem_style"),
    *("resolution_kd", "resolution_teacher", "resolution_weno"),
]


@pytest.mark.parametrize("preset", ["one_batch", "overfit", "profiler"])
@pytest.mark.parametrize("experiment", ONE_OF_EACH_METHOD)
def test_debug_presets_suit_every_method(experiment, preset, tmp_path):
    """`phase_epochs` takes the place of `trainer.max_epochs` where a method has phases."""
    config = compose_run(f"experiment={experiment}", "trainer=cpu", f"debug={preset}", run_dir=str(tmp_path))
    expected = {"one_batch": (1, 1), "overfit": (60, 30), "profiler": (2, 1)}[preset]
    assert (config.trainer.max_epochs, config.phase_epochs) == expected
    settings = OmegaConf.to_container(config, resolve=True)
    settings.pop("hydra")
    check_settings(settings)


def test_every_method_has_its_debug_presets_tested():
    targets = {compose_run(f"experiment={name}").method._target_ for name in ONE_OF_EACH_METHOD}
    assert targets == {OmegaConf.load(path).get("_target_") for path in (CONFIG_DIR / "method").glob("*.yaml")} - {None}


PICTURES = ["data=paired_images", "data.images_per_step=4", "method.network.width=8", "method.network.groups=4"]
GLANDS = ["data=synthetic_glands", "data.image_size=32", "instances_per_step=4", "segmenter.widths=[4,6,8]"]
DIGITS = ["data=digits_mil", "data.max_train_bags=20", "data.max_test_bags=10", "encoder=tiny_cnn"]


@pytest.mark.parametrize(
    ("experiment", "settings", "batches"),
    [
        ("weno_gated_abmil", DIGITS, [2]),
        ("rnn_mil", DIGITS, [1, 1]),
        ("d2l_mnist", [*DIGITS, "method.rounds=2"], [1, 1, 1]),
        ("ifkd_vgg_released", [*GLANDS, "segmenter.pretrained=false"], [1, 1, 1]),
        ("resolution_kd", [*PICTURES, "method.finetune=on"], [1, 1, 1]),
        ("resolution_baseline", PICTURES, [1]),
    ],
)
def test_one_batch_goes_through_every_phase(experiment, settings, batches, tmp_path):
    """One batch of each view of the data in each epoch, one epoch for each phase."""
    seen = []

    class Count(Callback):
        def on_train_epoch_start(self, *args):
            seen.append(0)

        def on_train_batch_end(self, *args):
            seen[-1] += 1

    if "data=paired_images" in settings:
        write_pictures(tmp_path / "pictures")
        settings = [*settings, f"data.root={tmp_path / 'pictures'}"]
    config = compose_run(f"experiment={experiment}", "trainer=cpu", "debug=one_batch", *settings, run_dir=str(tmp_path))
    data = instantiate(config.data, _convert_="all")
    data.setup()
    method = instantiate(config.method, _convert_="all")(**data.model_inputs)
    choose_monitor(config, method)
    shorten_phases(config, method)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    settings = {key: value for key, value in config.trainer.items() if key not in OF_THE_PROCESS}
    trainer = instantiate(settings, _convert_="all", callbacks=[Count()], **quiet)
    trainer.fit(method, datamodule=data)
    assert seen == batches
    assert math.isfinite(trainer.callback_metrics[config.monitor])
