"""The wheel holds the configuration and every package, and works from a directory that knows nothing of the source."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NEW_ROOM = [Path("kd_mil/new_room/__init__.py"), Path("kd_mil/new_room/part.py")]
"""Added to the source before the wheel is built: no list has to know of a new folder."""
SETTINGS_OF_ONE_MACHINE = Path("conf/local/default.yaml")
pytestmark = pytest.mark.slow


def call(*command, cwd, **environment):
    result = subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """What the wheel would put into site-packages."""
    source, site = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    for name in ("kd_mil", "conf", "hydra_plugins"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (*NEW_ROOM, SETTINGS_OF_ONE_MACHINE):
        (source / path).parent.mkdir(exist_ok=True)
        (source / path).touch()
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    call("-m", "build", "--wheel", "--no-isolation", "--skip-dependency-check", ".", cwd=source)
    [wheel] = (source / "dist").glob("*.whl")
    zipfile.ZipFile(wheel).extractall(site)
    return site


def files(folder):
    paths = (path.relative_to(ROOT) for path in (ROOT / folder).rglob("*") if path.is_file())
    return [path for path in paths if "__pycache__" not in path.parts]


def test_every_module_and_every_setting_is_inside_and_nothing_else(installed):
    modules = [*files("kd_mil"), *files("hydra_plugins")]
    settings = ["kd_mil" / path for path in files("conf") if "local" not in path.parts]
    found = {path.relative_to(installed) for path in installed.rglob("*") if path.is_file()}
    assert {path for path in found if not path.parts[0].endswith(".dist-info")} == {*modules, *settings, *NEW_ROOM}


def test_it_runs_from_elsewhere(installed, tmp_path):
    where = call("-c", "import kd_mil; print(kd_mil.__file__)", cwd=tmp_path, PYTHONPATH=str(installed))
    assert Path(where.strip()).is_relative_to(installed)
    few = ["trainer=cpu", "trainer.max_epochs=1", "data.max_train_bags=8", "data.max_test_bags=4"]
    run = ["-m", "kd_mil.run", "experiment=weno_dsmil", "data=digits_mil", *few]
    assert "instance_auroc" in call(*run, cwd=tmp_path, PYTHONPATH=str(installed))
    assert list(tmp_path.glob("runs/weno_dsmil/*/metrics.json"))
