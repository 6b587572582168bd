"""Model cards: what they must hold, and what a checkpoint from elsewhere may not run."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from kd_mil.cli.command import CONFIG_DIR
from kd_mil.core.errors import UserError
from kd_mil.core.hashing import file_digest
from kd_mil.prediction.card import is_allowed, read_card, refuse_foreign_targets, walk, without_downloads
from kd_mil.prediction.loading import segments

GROUPS = ("method", "encoder", "aggregator", "student_head", "hpm", "preprocess", "optimizer")
CARD = {
    "method": {"_target_": "kd_mil.methods.weno.weno.WENO"},
    "model_inputs": {"instance_shape": [4], "num_classes": 2},
    "class_names": ["normal", "tumour"],
    "instance_source": {"kind": "features", "width": 4, "dtype": "float16"},
    "experiment": "weno_dsmil",
}
NOWHERE = Path("nowhere.ckpt")


@pytest.mark.parametrize("group", GROUPS)
def test_everything_a_run_can_choose_may_be_loaded(group: str) -> None:
    files = sorted((CONFIG_DIR / group).glob("*.yaml"))
    assert files
    for path in files:
        for key, value in walk(OmegaConf.to_container(OmegaConf.load(path))):
            if key == "_target_" and value != "???":  # ???: a class of the user's own, which takes trust=true
                assert is_allowed(value), f"{path.name}: {value}"


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.eval",
        "torch.load",
        "torch.hub.load",
        "kd_mil.run.forget",  # ours, but it removes folders
        "kd_mil.core.records.write_json",
        "kd_mil.models.encoders.small.math.prod",  # through the imports of an allowed module
        "kd_mil.models.encoders.timm_encoder.timm.create_model",
        "torch.nn.modules.module.OrderedDict",
        "torch.nn.modules.module.warnings.warn",
        "torch.nn.init.uniform_",
        "torch.nn",
        "torch.nnx.Linear",
        "kd_mil.methods",
        "kd_mil.methods.nothing.Method",
        "",
        None,
        ["os.system"],
    ],
)
def test_what_does_more_than_compute_is_refused(target: object) -> None:
    assert not is_allowed(target)
    config = CARD["method"] | {"encoder": {"parts": [{"_target_": target, "command": "touch x"}]}}
    with pytest.raises(UserError, match=r"nowhere.ckpt wants to run .* trust=true"):
        refuse_foreign_targets(config, NOWHERE)


@pytest.mark.parametrize("target", ["torch.nn.Linear", "torch.optim.AdamW", "kd_mil.methods.baselines.mil.MIL"])
def test_networks_methods_and_optimisers_are_allowed(target: str) -> None:
    refuse_foreign_targets({"a": [{"_target_": target}]}, NOWHERE)


@pytest.mark.parametrize("config", [{"encoder": "${oc.create:{_target_: os.system}}"}, {"a": ["${b}"]}, {"${c}": 1}])
def test_interpolations_are_refused(config: dict) -> None:
    """One could produce a target that nobody has looked at."""
    with pytest.raises(UserError, match="interpolation"):
        refuse_foreign_targets(config, NOWHERE)


def test_weights_are_not_fetched_only_to_be_replaced() -> None:
    config = {"encoder": {"name": "resnet18", "pretrained": True}, "list": [{"pretrained": True}, 3]}
    without = {"encoder": {"name": "resnet18", "pretrained": False}, "list": [{"pretrained": False}, 3]}
    assert without_downloads(config) == without


def test_a_card_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    path.write_bytes(b"abc")
    card = read_card({"model_card": CARD}, path)
    assert card.class_names == ["normal", "tumour"]
    assert card.source["width"] == 4
    assert card.checkpoint == "ba7816bf8f01cfea"  # SHA-256 of "abc", FIPS 180-2
    assert file_digest(path) == card.checkpoint


@pytest.mark.parametrize("name", ["method", "model_inputs", "class_names", "instance_source"])
def test_a_card_without_what_prediction_needs(name: str) -> None:
    for card in ({key: value for key, value in CARD.items() if key != name}, CARD | {name: 3}):
        with pytest.raises(UserError, match=f"no {name}"):
            read_card({"model_card": card}, NOWHERE)


def test_a_run_on_something_else_than_slides() -> None:
    with pytest.raises(UserError, match="neither from slides nor from feature files"):
        read_card({"model_card": CARD | {"instance_source": {}}}, NOWHERE)


@pytest.mark.parametrize(
    "source", [{"kind": "features"}, {"kind": "tiles"}, {"kind": "tiles", "tiling": {}, "tissue": {}, "backend": 5}]
)
def test_a_source_says_what_its_kind_needs(source):
    with pytest.raises(UserError, match="its model card does not say its"):
        read_card({"model_card": CARD | {"instance_source": source}}, NOWHERE)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("kd_mil.methods.ifkd.ifkd.IFKD", True),
        ("kd_mil.methods.ifkd.IFKD", True),
        ("kd_mil.methods.baselines.cam.CAM", True),
        ("kd_mil.methods.weno.weno.WENO", False),
        ("os.system", False),
        (["IFKD"], False),
        (None, False),
    ],
)
def test_a_card_of_a_method_that_segments_is_recognised_without_building_it(target, expected):
    assert segments({"method": {"_target_": target}}) == expected
    assert not segments({"method": target})
    assert not segments(target)
