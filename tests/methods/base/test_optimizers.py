"""The presets of optimisers update all weights in one pass, as the published formulas do, and clip at any precision."""

import copy

import pytest
import torch
from hydra.utils import instantiate

from tests.support.configs import compose_run
from tests.support.methods import make_mil
from tests.support.tiny import TinyData, fit, tiny_splits

STEPS = 20


def updated(optimizer, network):
    """Weights after steps on the same random gradients."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(STEPS):
        for weight in network.parameters():
            weight.grad = torch.randn(weight.shape, generator=generator)
        optimizer.step()
    return torch.cat([weight.detach().flatten() for weight in network.parameters()])


@pytest.mark.parametrize("preset", ["adam", "adam_ifkd", "adamw"])
def test_one_pass_is_the_loop_over_parameters(preset):
    new_optimizer = instantiate(compose_run(f"optimizer={preset}").optimizer, _convert_="all")
    networks = [torch.nn.Sequential(torch.nn.Linear(7, 5), torch.nn.Linear(5, 3))]
    networks += [copy.deepcopy(networks[0])]
    start = torch.cat([weight.detach().flatten() for weight in networks[0].parameters()])
    fused, looped = new_optimizer(networks[0].parameters()), new_optimizer(networks[1].parameters(), fused=False)
    assert fused.defaults["fused"]
    weights = updated(fused, networks[0])
    torch.testing.assert_close(weights, updated(looped, networks[1]), rtol=0, atol=1e-6)
    assert (weights - start).abs().max() > 10 * 1e-6


def test_gradients_are_clipped_in_bfloat16_for_an_optimiser_of_one_pass():
    """With a rate of 1 and no momentum, the step of each part is its gradient: of the norm asked for."""

    class OnePass(torch.optim.SGD):
        _step_supports_amp_scaling = True  # what Lightning knows fused optimisers by

    method = make_mil(optimizer=lambda weights: OnePass(weights, lr=1.0), gradient_clip=0.001)
    before = copy.deepcopy(method.state_dict())
    fit(method, TinyData(tiny_splits()), precision="bf16-mixed", limit_train_batches=1, limit_val_batches=0)
    moved = [
        method.state_dict()[f"aggregator.{name}"] - before[f"aggregator.{name}"]
        for name, _ in method.aggregator.named_parameters()
    ]
    assert torch.cat([one.flatten() for one in moved]).norm().item() == pytest.approx(0.001, rel=1e-3)
