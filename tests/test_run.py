"""What a run refuses before it trains, what it answers when it has finished, and what it writes."""

import json
import shutil
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from kd_mil.core.checkpoints import read_checkpoint
from kd_mil.core.errors import UserError
from kd_mil.data.datamodules import SplitDataModule
from kd_mil.data.pairs.pair_data import PairedImages
from kd_mil.jobs.before_training import check_before_training
from kd_mil.jobs.run import evaluate
from kd_mil.run import refuse
from tests.support.configs import compose_run
from tests.support.methods import make_mil
from tests.support.training import train

TINY = ["data=digits_mil", "encoder=tiny_cnn", "data.max_train_bags=10", "data.max_test_bags=6", "trainer.max_epochs=1"]
MIL = ["experiment=mil_gated_abmil", *TINY]
QUIET = ["logger.tensorboard=null", "callbacks.figures=null", "callbacks.distillation=null"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    return folder, train(folder, *MIL, *QUIET)


def test_a_finished_run_answers_with_its_score(finished, capsys):
    folder, score = finished
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert train(folder, *MIL, *QUIET) == score
    assert "already finished" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.parametrize("content", [None, "", "[1", "5"])
def test_a_finished_run_without_its_metrics_says_so(finished, content):
    path = finished[0] / "metrics.json"
    kept = path.read_text()
    try:
        path.unlink() if content is None else path.write_text(content)
        with pytest.raises(UserError, match=r"metrics\.json"):
            train(finished[0], *MIL, *QUIET)
    finally:
        path.write_text(kept)


def change_the_split(folder):
    """As if a training bag had been another one when the run was recorded."""
    table = pd.read_csv(folder / "splits.csv", dtype=str)
    first = table.index[table.split == "train"][0]
    table.loc[first, "split"] = "test"
    table.to_csv(folder / "splits.csv", index=False)
    return table.bag_id[first]


@pytest.mark.parametrize("status", ["finished", "running"])
def test_neither_goes_on_nor_answers_for_other_data(status, tmp_path):
    train(tmp_path, *MIL, *QUIET)
    record = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(record | {"status": status}))
    bag = change_the_split(tmp_path)
    with pytest.raises(UserError, match=f"another part \\({bag}: test, now train\\)"):
        train(tmp_path, *MIL, *QUIET)
    train(tmp_path, *MIL, *QUIET, "overwrite=true")


def test_a_callback_that_changes_training_is_part_of_the_configuration(finished):
    """Pictures are not."""
    averaging = "+callbacks.average={_target_: lightning.pytorch.callbacks.StochasticWeightAveraging, swa_lrs: 0.1}"
    with pytest.raises(UserError, match="another configuration"):
        train(finished[0], *MIL, *QUIET, averaging)
    assert train(finished[0], *MIL, "logger.tensorboard=null", "callbacks.slide_maps=null") == finished[1]


def test_clipping_is_refused_where_gradients_are_scaled():
    """Lightning unscales them after the method has clipped them."""
    mixed, method = SimpleNamespace(precision="16-mixed"), make_mil(gradient_clip=1.0)
    with pytest.raises(UserError, match="16-mixed"):
        check_before_training(method, None, mixed)
    check_before_training(method, None, SimpleNamespace(precision="bf16-mixed"))
    check_before_training(make_mil(), None, mixed)


def test_too_few_test_bags_for_the_processes_are_found_before_training(tmp_path):
    with pytest.raises(UserError, match="the test part has 2 bags or images for 3 processes"):
        train(tmp_path, *MIL[:-2], "data.max_test_bags=2", "trainer=ddp_cpu", "trainer.devices=3")
    assert not (tmp_path / "run.json").exists()


def test_a_tuned_score_selects_nothing_with_three_classes(tmp_path):
    data = ["data=digits_classes", "data.positive_classes=[8,9]", "monitor=val/model/bag_f1_tuned"]
    with pytest.raises(
        UserError, match=r"METRIC one of bag_loss, bag_auroc, bag_ap, bag_accuracy, bag_f1, case_loss, .*, case_f1$"
    ):
        train(tmp_path, "experiment=mil_gated_abmil", *data)
    assert not (tmp_path / "run.json").exists()


@pytest.mark.parametrize(
    ("experiment", "monitor"),
    [
        ("mil_gated_abmil", "val/model/bag_los"),
        ("weno_dsmil", "val/techer/bag_loss"),
        ("weno_dsmil", "3"),
        ("ifkd_vgg", "val/student/bag_loss"),
        ("resolution_kd", "test/student/image_loss"),
    ],
)
def test_a_misspelt_monitor_is_found_before_data_are_built(experiment, monitor, tmp_path, monkeypatch):
    def built(*_, **__):
        raise AssertionError("data are built")

    for module in (SplitDataModule, PairedImages):
        monkeypatch.setattr(module, "setup", built)
    with pytest.raises(UserError, match="monitor="):
        train(tmp_path, f"experiment={experiment}", f"monitor={monitor}")


@pytest.mark.parametrize(
    ("experiment", "data", "line"),
    [
        ("mil_abmil", "synthetic_glands", "made of images with masks, but method=mil trains on bags"),
        ("weno_abmil", "paired_images", "made of pairs of images, but method=weno trains on bags"),
        ("ifkd_vgg", "digits_mil", "made of bags, but method=ifkd trains on images with masks"),
        ("resolution_kd", "digits_mil", "made of bags, but method=resolution trains on pairs of images"),
    ],
)
def test_data_of_another_kind_are_found_before_they_are_read(experiment, data, line, tmp_path):
    with pytest.raises(UserError, match=f"^data={data} is {line}: choose other data"):
        train(tmp_path, f"experiment={experiment}", f"data={data}", "monitor=null")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("+trainer.fast_dev_run=true", "debug=one_batch"),
        ("trainer.devices=two", "trainer.devices=two"),
        ("paths.run_root=''", "run_root= is not set"),
    ],
)
def test_what_would_fail_after_training_is_refused_first(override, line):
    with pytest.raises(UserError, match=line):
        refuse(compose_run(override, run_dir="out"))


def test_without_the_checkpoint_that_is_tested_nothing_is_trained(tmp_path):
    """The last epoch, which is kept for a resumed run, would pass for the best one."""
    with pytest.raises(UserError, match=r"callbacks\.checkpoint keeps the checkpoint that is tested"):
        train(tmp_path, *MIL, *QUIET, "~callbacks.checkpoint")
    assert not (tmp_path / "run.json").exists()


def test_a_run_killed_after_its_last_epoch_records_its_epochs_all_the_same(tmp_path):
    train(tmp_path, *MIL, *QUIET)
    record = json.loads((tmp_path / "run.json").read_text())
    del record["epochs"]
    (tmp_path / "run.json").write_text(json.dumps(record | {"status": "running"}))
    train(tmp_path, *MIL, *QUIET)
    again = json.loads((tmp_path / "run.json").read_text())
    assert (again["status"], again["epochs"]) == ("finished", 1)


def test_metrics_are_of_the_checkpoint_tested():
    """Scores that an evaluation does not make anew are those of the last epoch, and no result of the best one."""
    best = SimpleNamespace(monitor=None, best_model_path="best.ckpt", best_model_score=None)
    trainer = SimpleNamespace(
        checkpoint_callback=best,
        validate=lambda *_, **__: [{"val/model/bag_loss": 0.25}],
        test=lambda *_, **__: [{"test/model/bag_loss": 0.5}],
    )
    method = make_mil()
    method.scores = {"val": {"model": {"bag_loss": 9.0}}}
    assert evaluate(trainer, method, None) == {"val/model/bag_loss": 0.25, "test/model/bag_loss": 0.5}


def test_a_checkpoint_from_before_its_class_moved_starts_a_run(finished, tmp_path):
    old = read_checkpoint(finished[0] / "checkpoints" / "best.ckpt")
    text = json.dumps(old["model_card"])
    assert "kd_mil.methods.baselines.mil.MIL" in text
    card = json.loads(text.replace("kd_mil.methods.baselines.mil.MIL", "kd_mil.methods.mil.MIL"))
    shutil.copy(finished[0] / "checkpoints" / "best.ckpt", tmp_path)
    torch.save(old | {"model_card": card}, tmp_path / "old.ckpt")
    train(tmp_path / "run", *MIL, *QUIET, "trainer.max_epochs=2", f"ckpt_path={tmp_path / 'old.ckpt'}")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["epochs"] == 2
