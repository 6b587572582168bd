"""Checkpoints of a GPU on machines without it."""

import pytest
import torch

from kd_mil.core.checkpoints import AtomicCheckpointIO, read_checkpoint, require_training_state
from kd_mil.core.errors import UserError


def saved_on_a_gpu(path, monkeypatch):
    """A file whose tensors say that they lay on the second GPU."""
    with monkeypatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:1")
        checkpoint = {"state_dict": {"weight": torch.arange(3.0)}, "model_card": {}}
        AtomicCheckpointIO().save_checkpoint(checkpoint, path)


def test_a_checkpoint_of_a_gpu_is_read_onto_the_cpu_by_every_way(tmp_path, monkeypatch):
    """Whatever machine reads it, and without a rank taking memory of another rank's GPU."""
    path = tmp_path / "last.ckpt"
    saved_on_a_gpu(path, monkeypatch)
    read = [read_checkpoint(path), AtomicCheckpointIO().load_checkpoint(path)]
    for checkpoint in read:
        assert checkpoint["state_dict"]["weight"].device.type == "cpu"
        assert checkpoint["state_dict"]["weight"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("lost", ["epoch", "loops", "optimizer_states"])
def test_weights_alone_are_nothing_to_resume_from(lost):
    whole = {"epoch": 1, "global_step": 2, "loops": {}, "callbacks": {}, "optimizer_states": [], "lr_schedulers": []}
    require_training_state(whole, "a.ckpt")
    for damaged in ({key: value for key, value in whole.items() if key != lost}, whole | {lost: "x"}):
        with pytest.raises(UserError, match=f"a.ckpt has no {lost} of the training"):
            require_training_state(damaged, "a.ckpt")
