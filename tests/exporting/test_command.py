"""`kd_mil.export ckpt=RUN`: a folder that loads again, that other runtimes read, and that the hub shows."""

import json
import re
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import kd_mil
from kd_mil import export
from kd_mil.core.errors import UserError
from kd_mil.prediction.exporting.readme import readme
from tests.support.methods import quiet_trainer
from tests.support.tiny import tiny_splits

ROOT = Path(__file__).resolve().parents[2]
WIDTH = 6


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run's folder: WENO on features, with test scores."""
    folder = tmp_path_factory.mktemp("run")
    method = kd_mil.WENO(
        (WIDTH,),
        2,
        encoder=partial(kd_mil.FeatureProjector, out_features=8),
        aggregator=partial(kd_mil.ABMIL, gated=True, hidden=[8]),
        student_head=partial(kd_mil.InstanceHead, hidden=(8,)),
        hpm=kd_mil.HardPositiveMining("off"),
        preprocess=kd_mil.Preprocess(standardise=True),
        optimizer=partial(torch.optim.Adam, lr=0.01),
    )
    bags = tiny_splits(largest=4).bags
    trainer = quiet_trainer(max_epochs=1, default_root_dir=folder)
    trainer.fit(method, kd_mil.InMemoryBags(bags, parts=["train", "val", "test"] * 8))
    trainer.save_checkpoint(folder / "checkpoints" / "best.ckpt")
    (folder / "metrics.json").write_text(json.dumps({"test/student/bag_auroc": 0.875, "val/student/bag_auroc": 0.9}))
    return folder


def exported(run, out, format, *more):
    """The command in this process; its exit code."""
    arguments = [f"ckpt={run}", f"format={format}", f"out={out}", *more]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["export", *arguments])
        try:
            export.start()
        except SystemExit as stop:
            return stop.code
    return 0


@pytest.fixture(scope="module")
def safetensors(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("exported") / "weights"
    assert exported(run, out, "safetensors", "license=cc-by-4.0") == 0
    return out


def said(method, bag):
    return {role: word.instance_probs.tolist() for role, word in method.predict(bag).items()}


def test_weights_load_again_as_the_run(run, safetensors):
    bag = torch.randn(5, WIDTH)
    again, before = kd_mil.load(safetensors), kd_mil.load(run)
    assert type(again) is kd_mil.WENO
    assert said(again, bag) == said(before, bag)
    assert again.thresholds == before.thresholds
    assert again.model_card["class_names"] == ["class0", "class1"]


def test_the_readme_is_a_card_of_the_hub(safetensors):
    text = (safetensors / "README.md").read_text()
    _, front, body = text.split("---\n", 2)
    matter = yaml.safe_load(front)
    assert matter["library_name"] == "kd_mil"
    assert matter["license"] == "cc-by-4.0"
    assert {"multiple-instance-learning", "safetensors"} <= set(matter["tags"])
    [result] = matter["model-index"][0]["results"]
    assert result["metrics"] == [{"type": "bag_auroc", "name": "test/student/bag_auroc", "value": 0.875}]
    assert "| student/bag_auroc | 0.8750 |" in body
    assert "class0 from class1" in body


def test_config_says_what_a_program_must_know(run, safetensors):
    config, method = json.loads((safetensors / "config.json").read_text()), kd_mil.load(run)
    assert config["class_names"] == ["class0", "class1"]
    assert config["decisions"]["thresholds"] == method.thresholds
    assert config["instances"] == {"shape": [WIDTH], "dtype": "float32"}
    assert config["transforms"]["preprocess"]["mean"] == pytest.approx(method.preprocess.mean.tolist())


def test_the_code_of_the_page_runs_and_equals_predict(run, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    monkeypatch.chdir(tmp_path)
    assert exported(run, "weno_onnx", "onnx") == 0
    assert sorted(file.name for file in Path("weno_onnx").iterdir()) == [
        *("README.md", "config.json", "encoder.onnx", "student.onnx", "teacher.onnx")
    ]
    bag = np.random.default_rng(0).normal(size=(9, WIDTH)).astype(np.float16)
    np.save("slide.npy", bag)
    [code] = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "howto" / "export.md").read_text(), re.DOTALL)
    exec(code, found := {})
    expected = kd_mil.load(run).predict(bag)["student"]
    np.testing.assert_allclose(found["bag_probs"], expected.bag_probs, atol=1e-5)
    np.testing.assert_allclose(found["instance_probs"], expected.instance_probs, atol=1e-5)


def test_the_code_of_its_readme_runs(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert exported(run, "FOLDER", "torch_export") == 0
    [code] = re.findall(r"```python\n(.*?)```", Path("FOLDER/README.md").read_text(), re.DOTALL)
    bag = torch.randn(4, WIDTH)
    exec(code, found := {"instances": bag})
    expected = kd_mil.load(run).predict(bag)["teacher"]
    torch.testing.assert_close(found["said"]["attention"], expected.attention, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("format", "more", "message"),
    [
        ("pdf", [], "format=pdf"),
        ("clam", [], "format=clam is for features=; leave ckpt out"),
        ("onnx", ["features=x"], "format=onnx is for ckpt=; leave features out"),
        ("safetensors", ["ckpt="], "ckpt= is not set: give the .ckpt file"),
    ],
)
def test_mistakes_are_one_line(run, tmp_path, capsys, format, more, message):
    assert exported(run, tmp_path / "out", format, *more) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_in_it_is_left_alone(run, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    assert exported(run, tmp_path, "safetensors") == 2
    assert "is not empty" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def test_graphs_alone_do_not_load(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="exported for other programs"):
        kd_mil.load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
def test_damaged_weights_are_one_line(safetensors, tmp_path, content):
    (tmp_path / "config.json").write_bytes((safetensors / "config.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match="safetensors"):
        kd_mil.load(tmp_path)


def test_a_card_that_names_what_may_not_run_is_refused(safetensors, tmp_path):
    config = json.loads((safetensors / "config.json").read_text())
    config["model_card"]["method"]["encoder"] = {"_target_": "os.system", "command": "touch x"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes((safetensors / "model.safetensors").read_bytes())
    with pytest.raises(UserError, match=r"wants to run 'os.system': refused"):
        kd_mil.load(tmp_path)


def test_a_model_without_scores_says_so(safetensors):
    config = json.loads((safetensors / "config.json").read_text())
    text = readme(config, {}, None)
    assert "model-index" not in text
    assert "license" not in text.split("---")[1]
    assert "No test scores" in text
