"""Code of README, docs and docstrings: each block is run by a test, or says what it needs and names what exists."""

import ast
import doctest
import re
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import kd_mil
from tests.support.command import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
RUN_BY = {
    "README.md": "tests/test_library.py",
    "docs/extending.md": "tests/test_extending.py",
    "docs/howto/export.md": "tests/exporting/test_command.py",
    "docs/howto/foundation_features.md": "tests/test_code_blocks.py",
}
"""Pages whose every block a test runs."""
MARKED = re.compile(r"# (?:needs|part of) ")
BLOCKS = [(str(page.relative_to(ROOT)), code) for page in PAGES for code in BLOCK.findall(page.read_text())]
NEED = [pytest.param(code, id=f"{page}:{number}") for number, (page, code) in enumerate(BLOCKS) if page not in RUN_BY]


def test_a_test_reads_every_page_that_it_is_said_to_run():
    assert set(RUN_BY) <= {page for page, _ in BLOCKS}
    for page, test in RUN_BY.items():
        assert Path(page).name in (ROOT / test).read_text()


@pytest.mark.parametrize("code", NEED)
def test_what_no_test_runs_says_what_it_needs_and_names_what_exists(code):
    assert MARKED.search(code)
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom):
            module = import_module(node.module)
            assert all(hasattr(module, entry.name) for entry in node.names)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "kd_mil":
            assert hasattr(kd_mil, node.attr)


def torchmil_set(folder, slides=20, width=16):
    """Features, labels, positions and labels of patches as torchmil's `ProcessedMILDataset` reads them."""
    rng = np.random.default_rng(0)
    for number in range(slides):
        cells = np.arange(9)
        truth = (cells < 3) & (number % 2 == 1)
        content = {
            "features": rng.normal(size=(9, width)).astype(np.float32) + 3 * truth[:, None],
            "labels": np.array([number % 2]),
            "coords": 512 * np.stack([cells % 3, cells // 3], 1),
            "patch_labels": truth.astype(int),
        }
        for name, values in content.items():
            (folder / name).mkdir(parents=True, exist_ok=True)
            np.save(folder / name / f"slide_{number}.npy", values)


def test_the_notebook_goes_from_features_of_torchmil_to_a_heat_map(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torchmil_set(tmp_path / "torchmil_set")
    [code] = BLOCK.findall((ROOT / "docs" / "howto" / "foundation_features.md").read_text())
    exec(compile(code, "foundation_features.md", "exec"), found := {})
    scores = found["trainer"].callback_metrics
    assert scores["test/student/instance_auroc"] > 0.8
    assert found["slide"].slide_id == found["data"].bags.bag_ids[1]
    assert found["axes"].get_images()


WITH_EXAMPLES = [path for path in sorted((ROOT / "kd_mil").rglob("*.py")) if ">>>" in path.read_text()]


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=lambda path: path.stem)
def test_an_example_of_a_docstring_gives_what_it_shows(path):
    found = doctest.testmod(import_module(".".join(path.relative_to(ROOT).with_suffix("").parts)))
    assert found.failed == 0
