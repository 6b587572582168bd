"""Checkpoints of a GPU on machines without it."""

import torch

from kd_mil.core.checkpoints import AtomicCheckpointIO, read_checkpoint


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
