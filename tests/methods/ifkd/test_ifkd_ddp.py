"""IFKD on two gloo processes: both end with one teacher, one student and one history of switches."""

import os
from pathlib import Path

import pytest
import torch

from tests.support.methods import checkpointing
from tests.support.ranks import results_of, start_ranks
from tests.support.tiny import fit
from tests.support.tiny_images import tiny_glands, tiny_ifkd


def train_rank(rank, port, folder):
    torch.set_num_threads(1)
    addresses = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0", "WORLD_SIZE": "2"}
    os.environ |= addresses | {"LOCAL_RANK": str(rank)}
    from lightning.pytorch.strategies import DDPStrategy

    def train(start=None, **settings):
        method = tiny_ifkd(switch={"rule": "periodic", "student_reinit": "fresh"})
        strategy = DDPStrategy(find_unused_parameters=True, process_group_backend="gloo")
        trainer = fit(method, tiny_glands(), epochs=6, start=start, devices=2, strategy=strategy, **settings)
        scores = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        return {"state": method.state_dict(), "scores": scores}

    whole = train(**checkpointing(Path(folder)))
    resumed = train(start=Path(folder) / "epoch3.ckpt")
    torch.save({"whole": whole, "resumed": resumed}, Path(folder) / f"rank{rank}.pt")


@pytest.mark.slow
def test_two_ranks_share_roles_weights_and_scores_and_resume_at_a_switch(tmp_path):
    """The switch comes before epoch 4: a run resumed from the end of epoch 3 makes it anew."""
    first, second = results_of(start_ranks(train_rank, str(tmp_path)), tmp_path)
    assert first["whole"]["state"]["switches"] == 1
    for other in (second["whole"], first["resumed"], second["resumed"]):
        for name, value in first["whole"]["state"].items():
            assert torch.equal(value, other["state"][name]) or value.isnan().all(), name
        assert first["whole"]["scores"] == pytest.approx(other["scores"], nan_ok=True, abs=0)
