"""Help, mistakes and the parent of a sweep import no library that takes long."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from kd_mil.cli.arguments import CONFIG_DIR

ROOT = Path(__file__).resolve().parents[2]
SLOW = {"torch", "lightning", "torchmetrics", "torchvision", "timm", "pandas", "scipy", "sklearn", "skimage", "h5py"}
SLOW |= {"matplotlib", "tensorboard", "PIL", "openslide", "pydicom", "shapely", "numpy", "optuna"}
MISTAKES = {
    "run": ["hpm.treshold=1"],
    "extract": ["out=x"],
    "predict": ["instances_per_step=0"],
    "evaluate": ["labels=x"],
    "reproduce": ["paper=weno", "parallel=0"],
    "segment": ["threshold=2"],
    "chain": ["out=x"],
    "view": ["port=-1", "predictions=."],
    "export": ["features=x", "out=y", "format=pdf"],
    "report": [],
    "frontier": ["within=101"],
    "doctor": ["hpm.treshold=1"],
}
"""What each command refuses by its settings alone."""
SWEEP = ["-m", "experiment=mil_max", "seed=1,2", "hydra.sweep.dir=runs", "hydra.sweep.subdir=${hydra.job.num}"]
FRONT = ("--help", "--version", "list experiments", "show experiment=weno", "init weno", "complete kd-mil\\ run\\ exp")
LINES = [
    *(["kd-mil", *shlex.split(line)] for line in FRONT),
    *([command, "--help"] for command in MISTAKES),
    *([command, *words] for command, words in MISTAKES.items()),
    *(["run", wrong] for wrong in ("seed=-1", "+new=1", "ckpt_path=3", "trainer.max_epochs=0", "hydra.run.dir=runs/0")),
    ["run", *SWEEP],
]
SCRIPT = """
import contextlib, io, json, runpy, sys

for line in json.loads(sys.argv[1]):
    sys.argv, said, code = list(line), io.StringIO(), 0
    name = "kd_mil" if line[0] == "kd-mil" else f"kd_mil.{line[0]}"
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            runpy.run_module(name, run_name="__main__", alter_sys=True)
        except SystemExit as end:
            code = end.code
    libraries = sorted({name.split(".")[0] for name in sys.modules})
    print(json.dumps([" ".join(line), code, said.getvalue(), libraries]), flush=True)
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """Of each line: exit code, output, and the libraries that it and those before it have imported."""
    folder = tmp_path_factory.mktemp("start_up")
    for number in ("0", "1"):  # of another configuration, so that no point is started
        (folder / "runs" / number).mkdir(parents=True)
        (folder / "runs" / number / "run.json").write_text(json.dumps({"status": "finished", "config_hash": "other"}))
    words = [sys.executable, "-c", SCRIPT, json.dumps(LINES)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return {line: rest for line, *rest in map(json.loads, result.stdout.splitlines())}


def test_every_command_is_here():
    assert set(MISTAKES) == {path.stem for path in CONFIG_DIR.glob("*.yaml")}


def without_slow_libraries(answer):
    code, said, libraries = answer
    assert not SLOW & set(libraries)
    return code, said


@pytest.mark.parametrize("line", FRONT)
def test_what_there_is(line, answers):
    code, said = without_slow_libraries(answers[" ".join(["kd-mil", *shlex.split(line)])])
    assert code == 0
    assert said.strip()


@pytest.mark.parametrize("command", MISTAKES)
def test_help(command, answers):
    code, said = without_slow_libraries(answers[f"{command} --help"])
    assert code == 0
    assert f"python -m kd_mil.{command}" in said


@pytest.mark.parametrize("line", [" ".join(line) for line in LINES[len(FRONT) + len(MISTAKES) : -1]])
def test_a_mistake(line, answers):
    code, said = without_slow_libraries(answers[line])
    assert (code, said.count("error: ")) == (2, 1), said


def test_the_parent_of_a_sweep(answers):
    code, said = without_slow_libraries(answers[" ".join(LINES[-1])])
    assert code == 2
    assert said.count("holds a run of another configuration") == 4, "of each point when it is met, and in the summary"


@pytest.mark.slow
def test_a_run_on_other_data_imports_nothing_of_slides():
    code = (
        "import sys, kd_mil.jobs.run, kd_mil.models.segmenters.vgg; print(*{one.split('.')[0] for one in sys.modules})"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "lightning" in result.stdout.split()
    assert not {"timm", "pydicom", "openslide", "tifffile", "shapely"} & set(result.stdout.split())
