"""Imports point one way: the table below is the architecture."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "kd_mil"

MAY_IMPORT = {
    "losses": {"losses"},
    "models": {"models", "errors", "distributed"},
    "slides": {"slides", "atomic", "errors"},
    "data": {"data", "slides", "atomic", "errors"},
    "evaluation": {
        "evaluation",
        "data.bag",
        "data.image_batch",
        "models.outputs",
        "models.map_reading",
        "distributed",
        "errors",
    },
    "callbacks": {
        "callbacks",
        "data.bag",
        "data.image_batch",
        "models.outputs",
        "evaluation",
        "slides",
        "atomic",
        "errors",
    },
    "methods": {
        "methods.base",
        "methods.bag_distiller",
        "methods.segmentation_distiller",
        "methods.pair_distiller",
        "methods.weno",
        "losses",
        "models",
        "data.bag",
        "data.image_batch",
        "data.image_pairs",
        "evaluation",
        "distributed",
        "checkpoints",
        "errors",
    },
    "prediction": {
        "prediction",
        "data",
        "slides",
        "models.outputs",
        "methods.bag_distiller",
        "records",
        "atomic",
        "errors",
    },
    "reporting": {"reporting", "evaluation", "records", "errors"},
    "diagnosis": {"diagnosis", "data", "errors"},
    "distributed": set(),
    "errors": set(),
    "checkpoints": {"atomic", "errors"},
    "atomic": {"errors"},
}
CONFIGURATION = {"hydra", "omegaconf"}
LIGHTNING_FREE = {"losses", "models", "slides", "evaluation", "distributed"}


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module)
    return names


def files_of(layer: str) -> list[Path]:
    module = PACKAGE / f"{layer}.py"
    return [module] if module.exists() else sorted((PACKAGE / layer).rglob("*.py"))


@pytest.mark.parametrize("layer", MAY_IMPORT)
def test_layer_imports_only_what_it_may(layer):
    files = files_of(layer)
    assert files, f"no layer {layer}"
    for path in files:
        for name in imports(path):
            if name.startswith("kd_mil."):
                inner = name.removeprefix("kd_mil.")
                allowed = any(inner == one or inner.startswith(f"{one}.") for one in MAY_IMPORT[layer])
                assert allowed, f"{path.relative_to(PACKAGE)} imports {name}"
            root = name.split(".")[0]
            assert root not in CONFIGURATION, f"{path.relative_to(PACKAGE)} imports {root}: commands only"
            assert not (layer in LIGHTNING_FREE and root == "lightning"), f"{path.relative_to(PACKAGE)} imports {root}"


def test_losses_are_pure_torch():
    for path in files_of("losses"):
        assert {name.split(".")[0] for name in imports(path)} <= {"torch", "collections", "typing", "math"}


def test_methods_do_not_import_each_other():
    for path in files_of("methods"):
        siblings = {name for name in imports(path) if name.startswith("kd_mil.methods.")}
        extended = {"weno"} if path.name == "weno_multiclass.py" else set()  # a subclass of its paper
        bases = {"base", "bag_distiller", "pair_distiller", "segmentation_distiller"}
        allowed = {f"kd_mil.methods.{base}" for base in bases | extended}
        assert siblings <= allowed, path.name


def test_nothing_is_called_utils_and_nothing_is_re_exported():
    assert not list(PACKAGE.rglob("*util*.py"))
    for path in PACKAGE.rglob("__init__.py"):
        assert not any(name.startswith("kd_mil") for name in imports(path)), path
