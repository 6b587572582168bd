"""Cost of a bag, by hand and on a method."""

import pytest
import torch
from torch import nn

from kd_mil.callbacks.bag_cost import BagCost
from kd_mil.evaluation.cost import call_cost
from kd_mil.methods.baselines.mil import MIL
from tests.support.tiny import TinyData, fit, tiny_abmil, tiny_parts, tiny_splits


def test_a_linear_layer_by_hand():
    layer, bag = nn.Linear(6, 4), torch.randn(10, 6)
    with torch.inference_mode():
        cost = call_cost(lambda: layer(bag), torch.device("cpu"), repeats=2)
    assert cost.gflop * 1e9 == pytest.approx(2 * 10 * 6 * 4)
    assert cost.peak_mib * 2**20 == 10 * 4 * 4
    assert cost.ms > 0


def test_a_method_has_its_cost_after_the_test():
    """More for a larger bag, nothing random, and no time unless asked for."""
    splits = tiny_splits()
    method, counting = MIL(**tiny_parts(), aggregator=tiny_abmil()), BagCost()
    trainer = fit(method, TinyData(splits))
    trainer.callbacks.append(counting)
    trainer.test(method, datamodule=TinyData(splits), verbose=False)
    sizes = splits.bags.sizes[splits.test].sort().values
    assert counting.costs["instances"] == int(sizes[len(sizes) // 2])
    assert counting.costs["parameters"] == sum(weights.numel() for weights in method.parameters())
    assert counting.costs["gflop"] > 0
    assert "ms" not in counting.costs
    first = dict(counting.costs)
    trainer.test(method, datamodule=TinyData(splits), verbose=False)
    assert counting.costs == first


def test_repeats_are_no_negative_number():
    with pytest.raises(Exception, match="latency_repeats"):
        BagCost(-1)
