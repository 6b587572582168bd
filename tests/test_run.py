"""What a run refuses before it trains, what it answers when it has finished, and what it writes."""

import json
import shutil
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from kd_mil.core.checkpoints import read_checkpoint
from kd_mil.core.errors import UserError
from kd_mil.run import check_before_training, evaluate
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
    with pytest.raises(UserError, match=r"METRIC one of .* bag_f1$"):
        train(tmp_path, "experiment=mil_gated_abmil", *data)
    assert not (tmp_path / "run.json").exists()


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
