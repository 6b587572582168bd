"""Which checkpoint is tested; the best one survives a move of the run to another directory."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch

from kd_mil.core.errors import UserError
from kd_mil.training.selection import BestCheckpoint
from tests.support.methods import make_mil
from tests.support.tiny import TinyData, fit, tiny_splits


def selection(folder):
    return BestCheckpoint(dirpath=str(folder), filename="best", monitor="val/teacher/bag_loss", mode="min")


def state_of(folder, score):
    """What a finished epoch of a run in `folder` left in its last checkpoint."""
    path = str(folder / "best.ckpt")
    chosen = selection(folder)
    chosen.best_model_path = chosen.kth_best_model_path = path
    chosen.best_model_score = chosen.kth_value = torch.tensor(score)
    chosen.best_k_models = {path: torch.tensor(score)}
    return chosen.state_dict()


def resumed(new, source, state):
    """The callback of a run in `new` that starts from `source/last.ckpt`, as Lightning calls it."""
    chosen = selection(new)
    checkpoint = {"callbacks": {chosen.state_key: state}}
    chosen.on_load_checkpoint(SimpleNamespace(ckpt_path=str(source / "last.ckpt")), None, checkpoint)
    chosen.load_state_dict(state)
    return chosen


def test_a_start_from_another_folder_takes_the_best_along(tmp_path):
    """Also over one that an attempt killed before its first `last.ckpt` left."""
    old, new = tmp_path / "old", tmp_path / "new"
    for folder in (old, new):
        folder.mkdir()
    (new / "best.ckpt").write_bytes(b"of a killed attempt")
    (old / "best.ckpt").write_bytes(b"best so far")
    chosen = resumed(new, old, state_of(old, 0.25))
    assert (new / "best.ckpt").read_bytes() == b"best so far"
    assert chosen.best_model_path == str(new / "best.ckpt")
    assert chosen.best_model_score == 0.25
    assert [path.name for path in new.iterdir()] == ["best.ckpt"]


def test_a_moved_folder_resumes_from_its_own_best(tmp_path):
    """The folder it was saved in may hold another run by now."""
    old, new = tmp_path / "old", tmp_path / "new"
    for folder, content in ((old, b"of another run"), (new, b"own")):
        folder.mkdir()
        (folder / "best.ckpt").write_bytes(content)
    state = state_of(old, 0.25)
    assert str(tmp_path) not in str(state)
    chosen = resumed(new, new, state)
    assert chosen.best_model_path == str(new / "best.ckpt")
    assert chosen.best_k_models == {str(new / "best.ckpt"): torch.tensor(0.25)}
    assert (new / "best.ckpt").read_bytes() == b"own"


def test_checkpoints_that_name_absolute_paths_are_read(tmp_path):
    path = str(tmp_path / "gone" / "best.ckpt")
    state = state_of(tmp_path, 0.25) | {"best_model_path": path, "kth_best_model_path": path, "dirpath": "/gone"}
    state["best_k_models"] = {path: torch.tensor(0.25)}
    (tmp_path / "best.ckpt").write_bytes(b"")
    chosen = resumed(tmp_path, tmp_path, state)
    assert chosen.best_model_path == chosen.kth_best_model_path == str(tmp_path / "best.ckpt")


def test_a_worse_epoch_after_the_move_does_not_win(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "best.ckpt").write_bytes(b"")
    moved = resumed(tmp_path / "new", tmp_path / "old", state_of(tmp_path / "old", 0.25))
    assert not moved.check_monitor_top_k(_trainer(), torch.tensor(0.3))
    assert moved.check_monitor_top_k(_trainer(), torch.tensor(0.2))


def _trainer():
    return SimpleNamespace(strategy=SimpleNamespace(reduce_boolean_decision=lambda decision, **_: decision))


def test_a_lost_best_checkpoint_is_one_clear_line(tmp_path):
    with pytest.raises(UserError, match="which is gone"):
        resumed(tmp_path / "new", tmp_path / "old", state_of(tmp_path / "old", 0.25))


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


@pytest.mark.parametrize("state", [None, {}, {"best_model_path": ""}])
def test_a_checkpoint_from_before_anything_was_selected_is_resumed(tmp_path, state):
    chosen = selection(tmp_path)
    checkpoint = {"callbacks": {} if state is None else {chosen.state_key: state}}
    chosen.on_load_checkpoint(SimpleNamespace(ckpt_path=str(tmp_path / "last.ckpt")), None, checkpoint)
    assert not list(tmp_path.iterdir())
