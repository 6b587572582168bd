"""Extraction by several processes, as launchers and a plain shell start them: real commands, small slides."""

import importlib.util
import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.support.command import kd_mil

TILES = ["tiling.tile_size=32", "tiling.magnification=null", "tiling.mpp=1.0", "mpp=1.0", "picture_side=null"]
RAY = {"RAY_worker_niceness": "0", "RAY_AUTH_MODE": "disabled"}
"""Its tasks have a niceness of 15 by itself: beside other work on the machine they would hardly move."""
LOCAL = ("num_cpus=2", "include_dashboard=false")
ON_RAY = ["hydra/launcher=ray", *(f"+hydra.launcher.ray.init.{setting}" for setting in LOCAL)]
ENCODER = ["encoder=timm", "encoder.name=test_byobnet", "precision=float32"]


@pytest.fixture
def slides(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "slides").mkdir()
    for number in range(6):
        pixels = np.full((160, 160, 3), 240, np.uint8)
        pixels[16 : 144 + number, 16:144] = rng.integers((150, 60, 120), (220, 120, 180), (128 + number, 128, 3))
        Image.fromarray(pixels).save(tmp_path / "slides" / f"s{number}.png")
    return tmp_path


def extract(folder, *overrides, code=0):
    paths = [f"slides={folder}/slides", f"out={folder}/out"]
    result = kd_mil("extract", *overrides, *paths, *TILES, cwd=folder, check=False, **RAY)
    assert result.returncode == code, result.stdout + result.stderr
    return result


def check_everything_is_there(folder):
    summary = pd.read_csv(folder / "out" / "summary.csv")
    assert summary.slide_id.tolist() == [f"s{number}" for number in range(6)]
    assert set(summary.status) <= {"written", "kept"}
    assert summary.tiles.min() > 0
    assert (folder / "out" / "index.html").exists()
    assert not (folder / "out" / ".claims").exists()


@pytest.mark.slow
def test_shards_as_jobs_of_submitit(slides):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    extract(slides, "-m", "shard=range(0,2)", "hydra/launcher=submitit_local", "hydra.launcher.timeout_min=8")
    check_everything_is_there(slides)
    assert list((slides / "out" / ".jobs" / ".submitit").glob("*/*_log.out"))


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        ("out=s3://bucket/x", "out=s3://bucket/x: give a path on a disk; object stores serve as inputs"),
        ("batch_size=x", "batch_size=x: must be an integer"),
        ("+tiles=3", "+tiles=3: kd_mil.extract has no setting tiles"),
        ("slides=null", "slides= is not set: give a folder, a pattern or a CSV of slides"),
    ],
)
def test_a_mistake_of_a_sweep_is_one_line_as_of_a_single_command(tmp_path, mistake, words):
    """Launchers run the command in their jobs, and it checks there what it checks alone."""
    given = {"slides": "none", "out": "out"} | dict([mistake.split("=", 1)])
    overrides = [f"{key}={value}" for key, value in given.items()]
    failed = kd_mil("extract", "-m", "shard=range(0,2)", *overrides, cwd=tmp_path, check=False)
    assert failed.returncode == 2
    assert failed.stderr.splitlines()[-1] == f"error: {words}"
    assert "Traceback" not in failed.stderr
    assert not (tmp_path / "s3:").exists()


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is there")
def test_a_launcher_that_is_not_installed_is_named_with_its_extra(slides):
    failed = extract(slides, "-m", "shard=range(0,2)", "hydra/launcher=ray", code=2)
    assert failed.stderr == "error: hydra/launcher=ray: pip install 'kd-mil[ray]' brings it\n"


@pytest.mark.slow
def test_shards_as_tasks_of_ray(slides):
    pytest.importorskip("hydra_plugins.hydra_ray_launcher")
    extract(slides, "-m", "shard=range(0,2)", *ON_RAY)
    check_everything_is_there(slides)


@pytest.mark.slow
def test_points_of_a_sweep_and_shards_of_a_prediction_as_tasks_of_ray(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_ray_launcher")
    rows, rng = ["slide_id,label,split,feature_path"], np.random.default_rng(0)
    for number in range(6):
        np.save(tmp_path / f"s{number}.npy", rng.normal(number % 2, 1, (5, 8)).astype(np.float32))
        rows.append(f"s{number},{number % 2},{('train', 'val', 'test')[number // 2]},s{number}.npy")
    (tmp_path / "manifest.csv").write_text("\n".join(rows))
    point = ["experiment=mil_max", "data=feature_bags", "data.manifest=manifest.csv", "trainer=cpu"]
    kd_mil("run", "-m", *point, "trainer.max_epochs=1", "seed=0,1", *ON_RAY, cwd=tmp_path, **RAY)
    records = [json.loads(path.read_text()) for path in sorted(tmp_path.rglob("run.json"))]
    assert [(record["status"], record["seed"]) for record in records] == [("finished", 0), ("finished", 1)]
    checkpoint = next(tmp_path.rglob("best.ckpt"))
    given = [f'ckpt="{checkpoint}"', "features=manifest.csv", "out=out", "device=cpu"]
    kd_mil("predict", "-m", "shard=range(0,2)", *given, *ON_RAY, cwd=tmp_path, **RAY)
    predicted = pd.read_csv(tmp_path / "out" / "slides.csv")
    assert predicted.slide_id.tolist() == [f"s{number}" for number in range(6)]
    assert predicted.model_prob.notna().all()


@pytest.mark.slow
def test_one_process_a_gpu_with_cores_for_gpus(slides):
    """`device=cpu` says so: the processes share slides and cores, and features are those of one process."""
    extract(slides, *ENCODER, "gpus=2", "device=cpu")
    check_everything_is_there(slides)
    assert not (slides / "out" / ".processes").exists()
    assert len(list((slides / "out" / ".finished").iterdir())) <= 2
    assert "gpus=2: PyTorch finds" in extract(slides, *ENCODER, "gpus=2", "device=cuda", code=2).stderr
