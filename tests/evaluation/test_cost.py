"""Cost by hand on a network of one layer, and on the sizes images really have."""

import pytest
import torch
from torch import nn

from kd_mil.evaluation.cost import flops, inference_cost, latency, peak_bytes
from kd_mil.models.resnet_gn import ResNetGN


def test_one_convolution_by_hand():
    layer = nn.Conv2d(3, 8, 3, padding=1, bias=False)
    cost = inference_cost(layer, [(10, 20)])
    assert cost.parameters == 8 * 3 * 9
    assert cost.gmac * 1e9 == pytest.approx(10 * 20 * 8 * 3 * 9)
    assert cost.gflop == 2 * cost.gmac
    assert cost.peak_mib * 2**20 == (3 + 8) * 10 * 20 * 4, "input and output live at once"
    assert cost.latency_ms is None


def test_peak_is_not_the_sum():
    """A chain holds two neighbours at a time; an in-place layer nothing of its own."""
    chain = nn.Sequential(*[nn.Conv2d(3, 3, 1) for _ in range(5)])
    in_place = nn.Sequential(*[layer for one in chain for layer in (one, nn.ReLU(inplace=True))])
    assert peak_bytes(chain, (8, 8)) == peak_bytes(in_place, (8, 8)) <= 3 * 3 * 64 * 4


def test_mean_over_the_images_and_peak_of_the_largest():
    network = ResNetGN(3)
    sizes = [(64, 64), (64, 64), (128, 32), (256, 128)]
    cost = inference_cost(network, sizes)
    assert cost.gflop * 1e9 == pytest.approx(sum(flops(network, size) for size in sizes) / 4)
    assert cost.peak_mib == inference_cost(network, [(256, 128)]).peak_mib
    assert all(parameter.device.type == "cpu" for parameter in network.parameters()), "the network itself is left alone"


def test_latency_is_measured_on_request_and_leaves_the_mode():
    network = nn.Conv2d(3, 4, 3).train()
    assert latency(network, (16, 16), 3) > 0
    assert network.training
    assert inference_cost(network, [(16, 16)], repeats=2).latency_ms > 0


def test_gradients_are_not_held():
    network = ResNetGN(3).to("meta")
    image = 3 * 64 * 64 * 4
    largest = 32 * 32 * 32 * 4
    assert image + largest <= peak_bytes(network, (64, 64)) < image + 3 * largest
    assert torch.is_grad_enabled()
