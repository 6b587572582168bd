"""Model cards: what they must hold, and what a checkpoint from elsewhere may not run."""

import copy
import functools
import math
import operator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from kd_mil.cards.card import is_allowed, read_card, refuse_foreign_targets, walk, without_downloads
from kd_mil.cli.command import CONFIG_DIR
from kd_mil.core.checkpoints import read_with_card
from kd_mil.core.errors import UserError
from kd_mil.core.hashing import file_digest
from kd_mil.methods.base.segmentation_method import SegmentationMethod
from kd_mil.prediction.inputs import trained_settings
from kd_mil.prediction.loading import is_made_by, load_method
from tests.support.configs import compose_run

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
        "kd_mil.jobs.run.forget",  # ours, but it removes folders
        "kd_mil.core.run_files.write_json",
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
    config = {"encoder": {"name": "r", "pretrained": True, "weights": "w.pth"}, "list": [{"pretrained": True}, 3]}
    without = {"encoder": {"name": "r", "pretrained": False, "weights": None}, "list": [{"pretrained": False}, 3]}
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
def test_a_card_without_what_prediction_needs(name: str, tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    for card in ({key: value for key, value in CARD.items() if key != name}, CARD | {name: 3}, 3, None):
        torch.save({"state_dict": {}, "model_card": card}, path)
        with pytest.raises(UserError, match=f"a.ckpt: its model card (has no {name}|is no table)"):
            read_card(read_with_card(path), path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Checkpoint of a method that has not learned anything, with the card of a run on feature files."""
    config = OmegaConf.to_container(compose_run("experiment=mil_max", "encoder=features").method, resolve=True)
    inputs = {"instance_shape": [4], "num_classes": 2}
    method = instantiate(config, _convert_="all")(**inputs)
    path = tmp_path_factory.mktemp("trained") / "a.ckpt"
    return path, {"state_dict": method.state_dict(), "model_card": CARD | {"method": config, "model_inputs": inputs}}


WRONG = [None, -1, math.nan, "x", {"a": 1}]


def places(content, path=()):
    """All places in nested containers."""
    pairs = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in pairs:
        yield (*path, key)
        yield from places(value, (*path, key))


def changed(card, place, *value):
    """The card with another value in a place, or with nothing there."""
    card = copy.deepcopy(card)
    holder = functools.reduce(operator.getitem, place[:-1], card)
    if value:
        holder[place[-1]] = value[0]
    else:
        del holder[place[-1]]
    return card


def test_whatever_a_card_says_is_taken_or_refused_in_one_line(trained):
    """Every place of it with values of every kind, and without any; some of them change nothing that matters."""
    path, content = trained
    refused = []
    for place in places(content["model_card"]):
        for value in [(), *((one,) for one in WRONG)]:
            torch.save(content | {"model_card": changed(content["model_card"], place, *value)}, path)
            try:
                load_method(path)
            except UserError as error:
                refused.append(str(error))
    assert len(refused) > 100
    assert not [line for line in refused if "\n" in line]


@pytest.mark.parametrize("state", [None, [], {"a": 3}, {1: torch.zeros(1)}])
def test_weights_that_are_none_are_one_line(trained, state):
    path, content = trained
    torch.save(content | {"state_dict": state}, path)
    with pytest.raises(UserError, match=r"state_dict|does not fit"):
        load_method(path)


def test_a_card_of_a_giant_takes_no_memory(trained):
    path, content = trained
    card = changed(content["model_card"], ("model_inputs", "instance_shape"), [10**9])
    torch.save(content | {"model_card": card}, path)
    with pytest.raises(UserError, match="its card describes"):
        load_method(path)


@pytest.mark.parametrize("part", ["tiling", "tissue"])
@pytest.mark.parametrize("value", [{"side": 3}, {"mpp": "x"}, {"min_saturation": "x"}, {3: 4}])
def test_slides_are_cut_in_words_of_this_version_alone(part, value):
    source = {"kind": "tiles", "tiling": {"mpp": 1.0}, "tissue": {}, "backend": "openslide"} | {part: value}
    card = SimpleNamespace(source=source)
    with pytest.raises(UserError, match="does not say how to cut slides"):
        trained_settings(card)


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
    ],
)
def test_a_card_of_a_method_that_segments_is_recognised_without_building_it(target, expected):
    assert is_made_by({"method": {"_target_": target}}, SegmentationMethod) == expected
