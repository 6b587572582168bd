"""Imports point one way: the table below is the architecture."""

import graphlib
import sys
from pathlib import Path

import pytest

from docs.draw_architecture import imports_of

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "kd_mil"

# A room is a folder, its subfolders apart; "commands" are the files at the top. A room may import itself, and what the
# table names: a folder with all below it, or one file of it.
MAY_IMPORT = {
    "core": set(),
    "core.machine": {"core"},
    "models": {"core"},
    "models.aggregators": {"core", "models"},
    "models.encoders": {"core", "models"},
    "models.segmenters": {"core", "models"},
    "slides": {"core"},
    "slides.formats": {"core"},
    "slides.annotations": {"core", "slides.coverage", "slides.formats"},
    "slides.tiles": {"core", "slides.coverage", "slides.slide_list", "slides.formats", "slides.annotations"},
    "slides.extraction": {
        *(
            "core",
            "slides.dicom_series",
            "slides.remote_slides",
            "slides.slide_list",
            "slides.slide_content",
            "slides.formats",
            "slides.annotations",
            "slides.tiles",
        ),
        "slides.overlays",
    },
    "slides.overlays": {"core", "slides.formats", "slides.annotations"},
    "slides.synthetic": {"core", "slides.coverage", "slides.over_slides"},
    "data": {"core"},
    "data.features": {
        "core",
        "data",
        "slides.label_columns",
        "slides.slide_labels",
        "slides.slide_list",
        "slides.slide_content",
    },
    "data.features.files": {
        *("core", "data", "slides.label_columns", "slides.slide_labels", "slides.slide_list", "slides.slide_content"),
        "slides.extraction.store",
    },
    "data.features.exports": {"core", "data"},
    "data.patches": {"core", "data", "slides.formats"},
    "data.tiles": {"core", "data", "slides"},
    "data.masks": {"core", "data", "slides"},
    "data.pairs": {"core", "data", "slides"},
    "evaluation": {"core", "data.batches", "models.outputs"},
    "evaluation.statistics": {"core"},
    "callbacks": {
        "core",
        "data.bags",
        "data.batches",
        "evaluation",
        "plot.curves",
        "slides.overlays",
        "slides.formats.image_decoding",
    },
    "training": {"core"},
    "cards": {"core", "models.outputs"},
    "methods.base": {"core", "cards", "data.batches", "evaluation", "models"},
    "methods.weno": {"core", "data.batches", "evaluation", "models", "methods.base"},
    "methods.distill_to_label": {"core", "data.batches", "evaluation", "models", "methods.base"},
    "methods.ifkd": {"core", "data.batches", "evaluation", "models", "methods.base"},
    "methods.resolution": {"core", "data.batches", "evaluation", "models", "methods.base"},
    "methods.ins": {"core", "data.batches", "evaluation", "models", "methods.base"},
    "methods.sela_mil": {"core", "data.batches", "evaluation", "models", "methods.base"},
    "methods.baselines": {"core", "data.batches", "evaluation", "models", "methods.base"},
    "prediction": {"core", "cards", "data", "slides", "evaluation", "models.outputs", "methods.base"},
    "prediction.exporting": {
        "core",
        "cards",
        "evaluation.statistics",
        "models.outputs",
        "models.preprocess",
        "methods.base",
    },
    "plot": {"core", "evaluation.statistics", "prediction", "slides.overlays"},
    "viewer": {"core", "prediction.folder", "prediction.panels", "slides"},
    "reporting": {"core", "evaluation"},
    "reporting.cohort": {"core", "evaluation", "reporting.html", "reporting.predictions"},
    "reporting.published": {"core", "reporting"},
    "diagnosis": {"core", "data"},
    "sweep": {"core"},
    "cli": {"core"},
    "commands": {"cli", "core", "jobs", "sweep"},
    "jobs": {
        *(
            "cards",
            "cli",
            "core",
            "data",
            "diagnosis",
            "evaluation",
            "methods.base",
            "models.encoders.tile_encoder",
            "prediction",
        ),
        *("reporting", "slides", "sweep", "training", "viewer"),
    },
}
ROOMS_OF = {
    "data": ["data.features.", "data.masks.", "data.pairs.", "data.patches.", "data.tiles."],
    "prediction": ["prediction.exporting."],
    "models": ["models.aggregators.", "models.encoders.", "models.segmenters."],
    "slides": ["slides.annotations.", "slides.extraction.", "slides.formats.", "slides.overlays.", "slides.synthetic."],
}
"""The files of a folder do not know the rooms inside it."""
KNOW_HYDRA = {"cli", "commands", "jobs"}
BUILD_POINTS = {"sweep/points.py", "sweep/processes.py", "sweep/search.py"}
"""Files elsewhere that may name Hydra or OmegaConf: they build points of a sweep."""
LIGHTNING_FREE = {"models", "slides", "evaluation", "core"}


def room_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).parts[:-1]) or "commands"


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")


def test_the_table_has_a_row_for_every_room():
    assert {room_of(path) for path in FILES} == set(MAY_IMPORT)


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_what_it_may(room):
    for path in (path for path in FILES if room_of(path) == room):
        for name in imports_of(path):
            where = f"{path.relative_to(PACKAGE)} imports {name}"
            root, _, inner = name.partition(".")
            if root == "kd_mil" and inner:
                assert any(inner == part or inner.startswith(f"{part}.") for part in MAY_IMPORT[room] | {room}), where
                assert not inner.startswith(tuple(ROOMS_OF.get(room, ()))), where
            knows = room in KNOW_HYDRA or str(path.relative_to(PACKAGE)) in BUILD_POINTS
            assert knows or root not in {"hydra", "omegaconf", "hydra_plugins"}, where
            pytorch_lightning = name == "lightning" or name.startswith("lightning.pytorch")
            assert not (room.split(".")[0] in LIGHTNING_FREE and pytorch_lightning), where


def test_core_knows_few_libraries():
    """Else it becomes the place where everything ends up."""
    known = {"torch", "numpy", "pandas", "lightning", "filelock", "fsspec", "safetensors", "kd_mil"}
    for path in (PACKAGE / "core").glob("*.py"):
        libraries = {name.split(".")[0] for name in imports_of(path)} - set(sys.stdlib_module_names)
        assert libraries <= known, path.name


def test_no_file_imports_itself_through_others():
    """Every file of the package and of its Hydra plugins, imports inside functions included."""
    files = [*FILES, *(ROOT / "hydra_plugins").rglob("*.py")]
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in files}
    graphlib.TopologicalSorter({name: imports_of(path) & set(modules) for name, path in modules.items()}).prepare()


def test_losses_are_pure_torch():
    losses = [path for path in FILES if path.stem.endswith("losses") and room_of(path).startswith("methods")]
    assert len(losses) >= 5
    for path in losses:
        names = {name for name in imports_of(path) if not name.startswith("kd_mil.methods.base.")}
        assert {name.split(".")[0] for name in names} <= {"torch", "collections", "typing", "math"}, path


def test_the_top_holds_commands_and_folders_only():
    for path in PACKAGE.glob("*.py"):
        assert path.name == "__init__.py" or '__name__ == "__main__"' in path.read_text(), path.name


def test_files_can_be_read_at_a_sitting():
    for path in FILES:
        assert len(path.read_text().splitlines()) <= 250, path.relative_to(PACKAGE)


def test_nothing_is_called_utils_and_nothing_is_re_exported():
    assert not list(PACKAGE.rglob("*util*.py"))
    for path in PACKAGE.rglob("__init__.py"):
        assert not any(name.startswith("kd_mil") for name in imports_of(path)), path


def test_test_modules_do_not_import_each_other():
    for path in (ROOT / "tests").rglob("*.py"):
        assert not any(".test_" in name for name in imports_of(path)), path
