"""What `import kd_mil` offers: a list that only grows, and methods that it alone suffices to build, train and load."""

import ast
import inspect
import re
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import torch

import kd_mil
from tests.support.methods import quiet_trainer
from tests.support.tiny import WIDTH, tiny_splits
from tests.support.tiny_images import tiny_glands
from tests.support.tiny_pairs import TinyPairs

ROOT = Path(__file__).resolve().parent.parent
METHODS = {
    *("CAM", "DistillToLabel", "IFKD", "INS", "MHIM", "MIL", "MultiClassWENO", "RNNMIL", "ResolutionDistillation"),
    *("SeLaMIL", "Supervised", "WENO"),
}
PARTS = {
    *("Distillation", "HardPositiveMining", "LabelCorrection", "MapReading", "PairAugment", "PairLoss"),
    *("PixelCrossEntropy", "Preprocess", "RoleSwitch", "StudentFeedback", "TransportLabels", "VAT"),
}
AGGREGATORS = {
    *("ABMIL", "ACMIL", "CLAM", "ChiMIL", "DSMIL", "DTFD", "LossABMIL", "Max", "Mean", "TorchMIL", "TransMIL"),
}
NETWORKS = {
    *("AlexNetCifar", "ConvStack", "FeatureProjector", "Identity", "InstanceHead", "LeNet5", "SmallCNN", "TimmEncoder"),
    *("CamClassifier", "ResNetGN", "TimmSegmenter", "VggMIL"),
}
DATA = {
    *("AnnotationSettings", "Bag", "Bags", "FeatureBags", "ImageFolders", "InMemoryBags", "Loading", "OutlineSettings"),
    *("PatchMasks", "SlideBags", "TilingSettings", "TissueSettings"),
}
OTHERS = {"Prediction", "Predictions", "UserError", "__version__", "load"}
STABLE = METHODS | PARTS | AGGREGATORS | NETWORKS | DATA | OTHERS
"""A name may be added; what is here stays, or `CHANGELOG.md` says what took its place."""
FUNCTIONS = {"evaluate", "extract", "predict"}


def test_the_names_are_those_of_the_list():
    assert set(kd_mil.HOMES) == STABLE
    assert set(dir(kd_mil)) == STABLE | FUNCTIONS | {"plot"}


@pytest.mark.parametrize("name", sorted(STABLE))
def test_what_the_library_offers_is_there_and_documented(name):
    found = getattr(kd_mil, name)
    assert found is getattr(import_module(kd_mil.HOMES[name]), name)
    assert found.__doc__ or name == "__version__"


@pytest.mark.parametrize("package", ["kd_mil", "kd_mil.plot"])
def test_type_checkers_see_what_is_there(package):
    module = import_module(package)
    stub = ast.parse(Path(module.__file__).with_suffix(".pyi").read_text())
    seen = {entry.asname for node in stub.body if isinstance(node, ast.ImportFrom) for entry in node.names}
    seen |= {node.target.id for node in stub.body if isinstance(node, ast.AnnAssign)}
    assert seen - {None} == set(dir(module))


def test_every_name_is_on_the_page_of_the_interface():
    page = (ROOT / "docs" / "api.md").read_text()
    shown = set(re.findall(r"^::: (\S+)$", page, re.MULTILINE))
    homes = {f"{home}.{name}" for name, home in kd_mil.HOMES.items() if name != "__version__"}
    plots = {f"kd_mil.plot.{home}.{name}" for name, home in kd_mil.plot.HOMES.items()}
    common = {name for name in shown if name.startswith("kd_mil.methods.base.")}
    assert shown - common == homes | plots
    assert {name.rpartition(".")[2] for name in common} == {
        "class_names",
        "load_from_checkpoint",
        "predict",
        "thresholds",
    }
    assert all(f"### `kd_mil.{name}(" in page for name in FUNCTIONS)


def ours_within(annotation):
    """Classes of kd_mil that an annotation names, but no aliases of functions."""
    found = {annotation} if inspect.isclass(annotation) and annotation.__module__.startswith("kd_mil") else set()
    return found.union(*map(ours_within, get_args(annotation)))


@pytest.mark.parametrize("name", sorted(METHODS | DATA - {"Bag", "Bags"}))
def test_what_an_argument_has_to_be_is_offered_too(name):
    """Nobody has to look for a class in the source in order to call another one."""
    built: Callable = getattr(kd_mil, name).__init__
    needed = {one.name for one in inspect.signature(built).parameters.values() if one.default is one.empty}
    hints = get_type_hints(built)
    wanted = set().union(*(ours_within(hints[one]) for one in needed & set(hints)))
    assert {one.__name__ for one in wanted} <= STABLE


RATE = {"optimizer": partial(torch.optim.Adam, lr=0.01)}
FEATURES = RATE | {
    "instance_shape": (WIDTH,),
    "num_classes": 2,
    "encoder": partial(kd_mil.FeatureProjector, out_features=8),
    "preprocess": kd_mil.Preprocess(),
}
ABMIL = {"aggregator": partial(kd_mil.ABMIL, gated=True, hidden=[8])}
HEAD = {"student_head": partial(kd_mil.InstanceHead, hidden=(8,))}
NO_MINING = {"hpm": kd_mil.HardPositiveMining("off")}
ROUND = {"teacher_epochs": 1, "student_epochs": 1}
IMAGES = RATE | {
    "instance_shape": (3, 32, 32),
    "num_classes": 2,
    "segmenter": partial(kd_mil.VggMIL, widths=(4, 6, 8)),
    "preprocess": kd_mil.Preprocess(),
    "reading": kd_mil.MapReading(blurs=(0.0,), blur=0.0),
}
ROLES = {"wce": kd_mil.PixelCrossEntropy(), "switch": kd_mil.RoleSwitch(first=1, period=1)}
PAIRS = {
    "network": partial(kd_mil.ResNetGN, stem="small", width=8, groups=4),
    "loss": kd_mil.PairLoss(),
    "augment": kd_mil.PairAugment(),
    "finetune_epochs": 1,
}
BUILT = {
    "CAM": lambda data: kd_mil.CAM(**IMAGES),
    "DistillToLabel": lambda data: kd_mil.DistillToLabel(
        **FEATURES, **ABMIL, **ROUND, vat=kd_mil.VAT(), kd=kd_mil.Distillation()
    ),
    "IFKD": lambda data: kd_mil.IFKD(**IMAGES, **ROLES, teacher_epochs=1),
    "INS": lambda data: kd_mil.INS(**FEATURES, **HEAD),
    "MHIM": lambda data: kd_mil.MHIM(**FEATURES, **ABMIL),
    "MIL": lambda data: kd_mil.MIL(**FEATURES, **ABMIL),
    "MultiClassWENO": lambda data: kd_mil.MultiClassWENO(**FEATURES, **ABMIL, **HEAD, **NO_MINING),
    "RNNMIL": lambda data: kd_mil.RNNMIL(**FEATURES, **HEAD, rnn_start_epoch=1),
    "ResolutionDistillation": lambda data: kd_mil.ResolutionDistillation(**data.model_inputs, **PAIRS, **ROUND, **RATE),
    "SeLaMIL": lambda data: kd_mil.SeLaMIL(**FEATURES, **HEAD),
    "Supervised": lambda data: kd_mil.Supervised(**FEATURES, **HEAD),
    "WENO": lambda data: kd_mil.WENO(**FEATURES, **ABMIL, **HEAD, **NO_MINING),
}
WITH_LENGTHS = {"DistillToLabel", "ResolutionDistillation"}
"""Methods whose settings say how long they train."""


def data_of(name):
    """A small set of the kind that a method takes, and what to predict."""
    if name == "ResolutionDistillation":
        data = TinyPairs(12, sizes=((16, 16),))
        data.setup()
        return data, torch.randint(256, (2, 3, 16, 16), dtype=torch.uint8)
    if name in ("CAM", "IFKD"):
        return tiny_glands(4, 4, 4), torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8)
    return kd_mil.InMemoryBags(tiny_splits(bags=12).bags, parts=["train", "train", "val", "val", "test", "test"] * 2), (
        torch.randn(3, WIDTH)
    )


def test_every_method_is_built_here():
    assert set(BUILT) == METHODS


@pytest.mark.parametrize("name", sorted(METHODS))
def test_its_own_class_loads_what_a_plain_trainer_saved(name, tmp_path):
    data, shown = data_of(name)
    method = BUILT[name](data)
    trainer = quiet_trainer(max_epochs=-1 if name in WITH_LENGTHS else 2)
    trainer.fit(method, data)
    trainer.save_checkpoint(tmp_path / "own.ckpt", weights_only=False)
    loaded = getattr(kd_mil, name).load_from_checkpoint(str(tmp_path / "own.ckpt"))
    assert loaded.class_names == list(data.class_names)
    assert loaded.thresholds == method.thresholds
    before, after = method.predict(shown), loaded.predict(shown.numpy())
    assert set(before) == set(after) != set()
    for role, said in before.items():
        assert torch.equal(said.bag_probs, after[role].bag_probs)
        assert torch.equal(said.instance_probs, after[role].instance_probs)
        torch.testing.assert_close(said.bag_probs.sum(1), torch.ones(len(said.bag_probs), dtype=torch.float64))
        assert set(loaded.thresholds) >= {role}


def test_predicting_images_leaves_the_modes_of_training_as_they_are():
    for name in ("IFKD", "ResolutionDistillation"):
        data, shown = data_of(name)
        method = BUILT[name](data).train()
        frozen = [module.training for module in method.modules()]
        method.predict(shown)
        assert [module.training for module in method.modules()] == frozen
