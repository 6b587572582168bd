"""Sizes and costs of the GroupNorm ResNets against the numbers of the authors' network."""

import pytest
import torch
from torch import nn

from kd_mil.core.errors import UserError
from kd_mil.evaluation.cost import flops
from kd_mil.models.resnet_gn import ResNetGN


def parameters(network):
    return sum(one.numel() for one in network.parameters())


@pytest.mark.parametrize(("classes", "count"), [(3, 1_231_011), (5, 1_231_525)])
def test_half_resnet10_has_the_size_of_the_released_one(classes, count):
    assert parameters(ResNetGN(classes)) == count


@pytest.mark.parametrize(
    ("depth", "count"), [("resnet18", 11_178_051), ("resnet34", 21_286_211), ("resnet50", 23_514_179)]
)
def test_deeper_networks_have_the_size_of_the_usual_ones(depth, count):
    """Torchvision's parameters with three classes: group and batch normalisation have as many."""
    assert parameters(ResNetGN(3, depth)) == count


@pytest.mark.parametrize(("depth", "mac"), [("resnet10_half", 5_016), ("resnet18", 36_144)])
def test_operations_per_pixel(depth, mac):
    network = ResNetGN(3, depth).to("meta")
    counted = flops(network, (512, 512))
    head = 2 * network.head.in_features * 3
    assert counted - head == 2 * mac * 512 * 512


def test_cost_falls_with_the_square_of_the_resolution():
    network = ResNetGN(3).to("meta")
    head = 2 * 256 * 3
    assert flops(network, (1024, 1024)) - head == 16 * (flops(network, (256, 256)) - head)


@pytest.mark.parametrize(("stem", "map_size"), [("large", (3, 2)), ("small", (9, 5))])
@pytest.mark.parametrize("depth", ["resnet10_half", "resnet50"])
def test_feature_map_and_logits(depth, stem, map_size):
    network = ResNetGN(4, depth, stem)
    output = network(torch.rand(2, 3, 66, 34))
    assert output.feature_map.shape == (2, network.head.in_features, *map_size)
    assert (output.feature_map >= 0).all()
    assert torch.allclose(output.logits, network.head(output.feature_map.mean((2, 3))))


@pytest.mark.parametrize(("stem", "smallest"), [("large", 5), ("small", 2)])
def test_smallest_images(stem, smallest):
    network = ResNetGN(2, stem=stem)
    assert network(torch.rand(1, 3, smallest, 1)).feature_map.shape == (1, 256, 1, 1)
    with pytest.raises(UserError, match="too small"):
        network(torch.rand(1, 3, smallest - 1, 1))


def test_images_do_not_see_each_other():
    """What batch normalisation would spoil: an image gives the same alone and in company."""
    network, images = ResNetGN(3), torch.rand(3, 3, 40, 40)
    alone = torch.cat([network(image[None]).logits for image in images])
    assert torch.allclose(network(images).logits, alone, atol=1e-5)
    assert not any(isinstance(one, nn.BatchNorm2d) for one in network.modules())


def test_initialisation_is_he_over_the_fan_out():
    torch.manual_seed(0)
    convolution = ResNetGN(3, "resnet18").stages[-1].residual[3]
    assert convolution.weight.std().item() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.01)
    assert all((one.weight == 1).all() for one in ResNetGN(3).modules() if isinstance(one, nn.GroupNorm))


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"depth": "resnet11"}, "did you mean 'resnet1"), ({"width": 24}, "does not divide")],
)
def test_mistakes(settings, message):
    with pytest.raises(UserError, match=message):
        ResNetGN(3, **settings)
