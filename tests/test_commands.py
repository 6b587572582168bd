"""Real commands in a temporary directory: the run contract, resume, and one clear line for each mistake."""

import json

import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from kd_mil.core.checkpoints import read_checkpoint
from tests.support.command import kd_mil
from tests.support.recomputed import all_recomputed

SMALL = ["data=digits_mil", "trainer=cpu", "trainer.max_epochs=3", "data.seed=1", "instances_per_step=64"]
SMALL += ["data.max_train_bags=40", "data.max_test_bags=20", "encoder=tiny_cnn"]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("run")
    result = kd_mil("run", "experiment=weno_dsmil", *SMALL, "hydra.run.dir=out", cwd=cwd)
    return cwd / "out", result


def test_run_leaves_what_the_contract_promises(finished_run):
    out, result = finished_run
    for name in ("metrics.json", "run.json", "bags.csv", "instances.parquet", "splits.csv", ".hydra/config.yaml"):
        assert (out / name).is_file(), name
    for name in ("checkpoints/best.ckpt", "checkpoints/last.ckpt", "figures/roc.png", "figures/probabilities.png"):
        assert (out / name).is_file(), name
    assert list((out / "tensorboard").glob("events.*"))
    metrics = json.loads((out / "metrics.json").read_text())
    for role in ("teacher", "student"):
        for level in ("bag", "instance"):
            for name in ("auroc", "ap", "accuracy", "f1"):
                assert 0 <= metrics[f"test/{role}/{level}_{name}"] <= 1
    run = json.loads((out / "run.json").read_text())
    assert run["status"] == "finished"
    assert run["seed"] == 0
    assert run["experiment"] == "weno_dsmil"
    assert "instance_auroc" in result.stdout
    assert str(out) in result.stdout


def test_written_predictions_give_the_written_metrics(finished_run):
    """metrics.json can be recomputed from the tables beside it."""
    out, _ = finished_run
    metrics = json.loads((out / "metrics.json").read_text())
    bags, instances = pd.read_csv(out / "bags.csv"), pd.read_parquet(out / "instances.parquet")
    assert list(bags.columns) == ["bag_id", "case_id", "label", "teacher_prob", "student_prob"]
    assert {"bag_id", "instance_id", "x", "y", "label", "attention", "teacher_prob", "student_prob"} <= set(instances)
    for role in ("teacher", "student"):
        assert roc_auc_score(bags.label, bags[f"{role}_prob"]) == pytest.approx(metrics[f"test/{role}/bag_auroc"])
        area = roc_auc_score(instances.label, instances[f"{role}_score"])
        assert area == pytest.approx(metrics[f"test/{role}/instance_auroc"])
    inside = instances[instances.bag_id.map(bags.set_index("bag_id").label).astype(int) > 0]
    for role, reading in (("teacher", "bag_of_one"), ("teacher", "instance_stream"), ("student", "instance_x_bag")):
        name = f"test/{role}/{reading}/instance_auroc"
        assert roc_auc_score(instances.label, instances[f"{role}_{reading}"]) == pytest.approx(metrics[name])
        assert roc_auc_score(inside.label, inside[f"{role}_{reading}"]) == pytest.approx(metrics[f"{name}_within"])
    assert metrics["test/teacher/instance_auroc"] == metrics["test/teacher/instance_stream/instance_auroc"]
    for name in ("auroc", "ap", "tpr", "fpr", "student_auroc"):
        assert 0 <= metrics[f"train/pseudo_labels/{name}"] <= 1
    names = all_recomputed(out)
    assert {"bag_ece", "bag_brier_tempered", "instance_f1_tuned", "instance_ap_per_bag"} <= names
    largest = instances.groupby("bag_id", observed=True).student_prob.max()
    assert largest[bags.bag_id].to_numpy() == pytest.approx(bags.student_prob.to_numpy())
    assert instances.groupby("bag_id", observed=True).attention.sum().to_numpy() == pytest.approx(1, abs=1e-4)


def test_checkpoints_load_without_running_code(finished_run):
    out, _ = finished_run
    checkpoint = torch.load(out / "checkpoints" / "best.ckpt", weights_only=True)
    assert checkpoint["model_card"]["class_names"] == ["negative", "positive"]
    assert read_checkpoint(out / "checkpoints" / "last.ckpt")["epoch"] == 2


def test_a_finished_run_is_not_run_again(finished_run):
    out, _ = finished_run
    before = (out / "metrics.json").stat().st_mtime_ns
    result = kd_mil("run", "experiment=weno_dsmil", *SMALL, "hydra.run.dir=out", cwd=out.parent)
    assert "already finished" in result.stdout
    assert (out / "metrics.json").stat().st_mtime_ns == before


def test_another_configuration_does_not_mix_into_a_run(finished_run):
    out, _ = finished_run
    result = kd_mil("run", "experiment=weno_dsmil", *SMALL, "seed=5", "hydra.run.dir=out", cwd=out.parent, check=False)
    assert result.returncode == 2
    assert "another configuration" in result.stderr


def test_resume_from_the_middle_ends_at_the_same_metrics(finished_run, tmp_path):
    """One epoch, then on from last.ckpt: every number equals the uninterrupted run's."""
    out, _ = finished_run
    first = [text for text in SMALL if "max_epochs" not in text]
    kd_mil("run", "experiment=weno_dsmil", *first, "trainer.max_epochs=1", "hydra.run.dir=half", cwd=tmp_path)
    resume = ["ckpt_path=half/checkpoints/last.ckpt", "hydra.run.dir=whole"]
    kd_mil("run", "experiment=weno_dsmil", *SMALL, *resume, cwd=tmp_path)
    resumed = json.loads((tmp_path / "whole" / "metrics.json").read_text())
    assert resumed == json.loads((out / "metrics.json").read_text())


def test_resume_elsewhere_keeps_the_best_epoch_before_the_cut(tmp_path):
    """With the direction turned round the first epoch is the best; the resumed run must still know it."""
    common = ["experiment=weno_dsmil", *[text for text in SMALL if "max_epochs" not in text], "monitor_mode=max"]
    kd_mil("run", *common, "trainer.max_epochs=3", "hydra.run.dir=straight", cwd=tmp_path)
    kd_mil("run", *common, "trainer.max_epochs=2", "hydra.run.dir=half", cwd=tmp_path)
    resume = ["trainer.max_epochs=3", "ckpt_path=half/checkpoints/last.ckpt", "hydra.run.dir=whole"]
    kd_mil("run", *common, *resume, cwd=tmp_path)
    straight, whole = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("straight", "whole"))
    assert whole == straight


def test_same_seed_same_metrics_other_seed_others(finished_run, tmp_path):
    out, _ = finished_run
    kd_mil("run", "experiment=weno_dsmil", *SMALL, cwd=tmp_path)
    [same] = (tmp_path / "runs" / "weno_dsmil").glob("*/metrics.json")
    assert same.read_text() == (out / "metrics.json").read_text()
    kd_mil("run", "experiment=weno_dsmil", *SMALL, "seed=1", "hydra.run.dir=other", cwd=tmp_path)
    assert (tmp_path / "other" / "metrics.json").read_text() != same.read_text()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["experiment=weno_nothing"], "weno_nothing"),
        (["hpm.treshold=0.5"], "Did you mean threshold"),
        (["hpm.threshold=1.5"], "hpm.threshold=1.5"),
        (["data.positive_ratio=1.5"], "positive_ratio"),
        (["data=cifar10_mil"], "CIFAR-10"),
        (["data=feature_bags", "data.manifest=none.csv"], "none.csv"),
        (["bags_per_step=0"], "bags_per_step=0"),
        (["method.attention_from=recompute", "aggregator=transmil"], "method.attention_from=bank"),
        (["ckpt_path=missing.ckpt"], "missing.ckpt"),
        (["encoder=timm", "encoder.name=resnet19"], "resnet19"),
        (["method.no_such_key=1"], "no_such_key"),
        (["optimizer.lr=-1"], "optimizer: Invalid learning rate"),
        (["seed=-1"], "seed=-1"),
        (["trainer.max_epochs=0"], "trainer.max_epochs=0"),
        (["aggregator=mean"], "no attention"),
        (["optimizer.lr=1e30"], "training diverged"),
        (["seed"], "seed"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_is_one_clear_line(overrides, message, tmp_path):
    result = kd_mil("run", "trainer=cpu", "trainer.max_epochs=1", *overrides, cwd=tmp_path, check=False)
    assert result.returncode == 2, result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert message in lines[0]
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.rglob("*.ckpt")), "training must not get as far as a checkpoint"


def test_the_traceback_is_there_on_request(tmp_path, monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    result = kd_mil("run", "hpm.threshold=1.5", cwd=tmp_path, check=False)
    assert result.returncode != 0
    assert "Traceback" in result.stderr
