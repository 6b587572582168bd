"""Which checkpoint is tested; the best one survives a move of the run to another directory."""

from functools import partial

import pytest
import torch

from kd_mil.core.errors import UserError
from kd_mil.training.selection import BestCheckpoint
from tests.support.methods import make_mil
from tests.support.tiny import TinyData, fit, tiny_splits


def state_of(folder, score):
    """What a finished epoch of a run in `folder` left in its last checkpoint."""
    path = folder / "best.ckpt"
    return {
        "monitor": "val/teacher/bag_loss",
        "best_model_score": torch.tensor(score),
        "best_model_path": str(path),
        "current_score": torch.tensor(score),
        "dirpath": str(folder),
        "best_k_models": {str(path): torch.tensor(score)},
        "kth_best_model_path": str(path),
        "kth_value": torch.tensor(score),
        "last_model_path": "",
    }


def selection(folder):
    return BestCheckpoint(dirpath=str(folder), filename="best", monitor="val/teacher/bag_loss", mode="min")


def test_a_move_takes_the_best_along(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    (old / "best.ckpt").write_bytes(b"best so far")
    moved = selection(new)
    moved.load_state_dict(state_of(old, 0.25))
    assert (new / "best.ckpt").read_bytes() == b"best so far"
    assert moved.best_model_path == str(new / "best.ckpt")
    assert moved.best_model_score == 0.25
    assert [path.name for path in new.iterdir()] == ["best.ckpt"]


def test_a_worse_epoch_after_the_move_does_not_win(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "best.ckpt").write_bytes(b"")
    moved = selection(tmp_path / "new")
    moved.load_state_dict(state_of(tmp_path / "old", 0.25))
    assert not moved.check_monitor_top_k(_trainer(), torch.tensor(0.3))
    assert moved.check_monitor_top_k(_trainer(), torch.tensor(0.2))


def _trainer():
    from types import SimpleNamespace

    return SimpleNamespace(strategy=SimpleNamespace(reduce_boolean_decision=lambda decision, **_: decision))


def test_a_lost_best_checkpoint_is_one_clear_line(tmp_path):
    with pytest.raises(UserError, match="which is gone"):
        selection(tmp_path / "new").load_state_dict(state_of(tmp_path / "old", 0.25))


@pytest.mark.parametrize("select", ["best", "last"])
def test_the_epoch_that_is_kept(tmp_path, select):
    """At a rate of 0 nothing ever improves: the first epoch stays the best one."""
    model = make_mil(optimizer=partial(torch.optim.SGD, lr=0.0))
    chosen = BestCheckpoint(select, "val/model/bag_loss", mode="min", dirpath=str(tmp_path), filename="best")
    fit(model, TinyData(tiny_splits()), epochs=3, enable_checkpointing=True, callbacks=[chosen])
    assert chosen.best_model_path == str(tmp_path / "best.ckpt")
    epoch = torch.load(chosen.best_model_path, weights_only=True)["epoch"]
    assert epoch == {"best": 0, "last": 2}[select]


def test_another_choice_is_refused():
    with pytest.raises(UserError, match="select=first: choose best or last"):
        BestCheckpoint("first")
