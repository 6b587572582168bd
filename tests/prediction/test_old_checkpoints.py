"""Checkpoints of version 0.1, a card of each method: built by today's classes they say what version 0.1 said.

`old_cards.json` holds, of runs of version 0.1, the card's method and model inputs, type and shape of every tensor of
the state dict, and the answers of version 0.1 with the weights of `weight` to the inputs of `images`, in 6 digits.
"""

import json
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kd_mil.cards.card import walk
from kd_mil.cards.loading import built_method
from kd_mil.cards.moved_targets import MOVED
from kd_mil.methods.base.bag_method import BagMethod
from kd_mil.methods.base.segmentation_method import SegmentationMethod
from kd_mil.prediction.loading import load_method, load_network

CARDS: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("old_cards.json").read_text())
SOURCE = {"kind": "features", "dtype": "float32"}


def weight(key: str, dtype: str, shape: list[int]) -> Tensor:
    """A tensor of a state dict that depends on its key alone; whole numbers and flags are 1."""
    if not dtype.startswith("float"):
        return torch.ones(shape, dtype=getattr(torch, dtype))
    normal = np.asarray(0.1 * np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape))
    values = torch.from_numpy(normal).to(getattr(torch, dtype))
    return values.abs() + 0.5 if key.endswith("running_var") else values


def images(*shape: int) -> Tensor:
    """Pixels, or features where an instance has one axis."""
    random = np.random.default_rng(0)
    if len(shape) > 2:
        return torch.from_numpy(random.integers(0, 256, shape, dtype=np.uint8))
    return torch.from_numpy(random.standard_normal(shape).astype(np.float32))


def checkpoint_of(name: str) -> dict[str, Any]:
    """A checkpoint as version 0.1 wrote it."""
    old = CARDS[name]
    card = {"method": old["method"], "model_inputs": old["model_inputs"], "instance_source": SOURCE}
    card |= {"class_names": ["a", "b", "c"][: old["model_inputs"].get("num_classes", 3)], "experiment": name}
    state = {key: weight(key, *kind) for key, kind in old["state"].items()}
    return {"model_card": card, "state_dict": state}


@torch.no_grad()
def answers(method: Any, inputs: dict[str, Any]) -> dict[str, Tensor]:
    """What every role says, whatever the method says it about."""
    if isinstance(method, BagMethod):
        found = method.predict(images(5, *inputs["instance_shape"]))
        return {role: torch.cat([said.bag_probs.flatten(), said.instance_probs]) for role, said in found.items()}
    if isinstance(method, SegmentationMethod):
        maps = method.predict_maps(images(5, *inputs["instance_shape"]))
        return {role: said.flatten()[::511] for role, said in maps.items()}
    pair = SimpleNamespace(teacher=list(images(4, 3, 32, 32)), student=list(images(4, 3, 8, 8)))
    return {role: said.flatten() for role, said in method.predict_images(pair).items()}


@pytest.mark.parametrize("name", CARDS)
def test_a_checkpoint_of_each_method_says_what_it_said(name: str) -> None:
    method = built_method(checkpoint_of(name), Path("old.ckpt"), trust=False)
    said = answers(method, CARDS[name]["model_inputs"])
    assert said.keys() == CARDS[name]["answers"].keys()
    for role, expected in CARDS[name]["answers"].items():
        np.testing.assert_allclose(said[role].double().numpy(), expected, rtol=0, atol=2e-6, err_msg=role)


def test_the_cards_name_every_method_there_was() -> None:
    named = {value for old in CARDS.values() for key, value in walk(old["method"]) if key == "_target_"}
    methods = {old for old in MOVED if old.startswith("kd_mil.methods.") and "Loss" not in old}
    assert methods - {"kd_mil.methods.resolution.resolution.Resolution"} <= named  # a name within 0.2


def test_bags_are_predicted_and_images_segmented_from_an_old_file(tmp_path: Path) -> None:
    """The way the commands go."""
    for name in ("weno_features", "ifkd_switch"):
        torch.save(checkpoint_of(name), tmp_path / f"{name}.ckpt")
    method, card = load_method(tmp_path / "weno_features.ckpt")
    assert (type(method).__name__, card.class_names, method.training) == ("WENO", ["a", "b"], False)
    network = load_network(tmp_path / "ifkd_switch.ckpt", "student")
    with torch.no_grad():
        said = network.predict(images(5, 3, 32, 32)).flatten()[::511]
    np.testing.assert_allclose(said.numpy(), CARDS["ifkd_switch"]["answers"]["student"], rtol=0, atol=2e-6)
