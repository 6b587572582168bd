"""Gathered steps are one larger step, in weights, and leave nothing behind."""

import pytest
import torch

from kd_mil.methods.baselines.mil import MIL
from kd_mil.methods.weno.weno import WENO
from tests.support.dealt_runs import imbalanced
from tests.support.tiny import TinyData, fit, no_mining, tiny_abmil, tiny_head, tiny_parts, tiny_splits

METHODS = {
    "mil": lambda: MIL(**tiny_parts(norm=False), aggregator=tiny_abmil()),
    "weno": lambda: WENO(**tiny_parts(norm=False), aggregator=tiny_abmil(), student_head=tiny_head(), hpm=no_mining()),
}


def trained(name, accumulate=1, epochs=2, start=None, **loading):
    torch.manual_seed(0)
    method = METHODS[name]()
    method.accumulate_bags = accumulate
    trainer = fit(method, TinyData(tiny_splits(), **loading), epochs, start)
    return method, trainer


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("together", [4, 5])
def test_gathered_steps_are_one_larger_step(name, together):
    """12 training bags: three updates of 4; of 5 the last update has the 2 that are left."""
    gathered, _ = trained(name, together)
    whole, _ = trained(name, bags_per_step=together)
    plain, _ = trained(name)
    assert gathered._held == 0
    for (key, ours), theirs, other in zip(
        gathered.named_parameters(), whole.parameters(), plain.parameters(), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6, msg=key)
        assert "weight" not in key or not torch.equal(ours, other)


def test_a_resumed_run_repeats_the_whole_one(tmp_path):
    """With classes drawn as often, weighed, and smoothed labels."""

    def run(**how):
        method, data, _ = imbalanced()
        return method, fit(method, data, 2, **how)

    torch.manual_seed(0)
    _, trainer = run(max_epochs=1)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    resumed, _ = run(start=tmp_path / "last.ckpt")
    torch.manual_seed(0)
    whole, _ = run()
    for ours, theirs in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)
