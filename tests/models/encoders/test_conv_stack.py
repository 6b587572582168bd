"""Sizes that the published networks have, and instances they cannot take."""

import pytest
import torch

from kd_mil.core.errors import UserError
from kd_mil.methods.distill_to_label.bag_classifier import BagClassifier
from kd_mil.models.aggregators.abmil import ABMIL
from kd_mil.models.encoders.conv_stack import ConvStack
from kd_mil.models.encoders.small import LeNet5

BREAST = ((32, 3, 1), (64, 3, 1), (128, 3, 1), (256, 3, 1), (256, 3, 1))


def parameters(encoder):
    network = BagClassifier(encoder, ABMIL(encoder.out_features, hidden=(), attention_dim=128, gated=True))
    return sum(parameter.numel() for parameter in network.parameters())


def test_sizes_of_published_bag_classifiers():
    assert parameters(ConvStack((3, 27, 27))) == 1_290_071
    assert parameters(ConvStack((3, 27, 27), fully_connected=(512, 512))) == 1_027_415
    assert parameters(LeNet5((1, 28, 28))) == 555_457


def test_the_breast_network_sees_one_pixel_after_five_convolutions():
    encoder = ConvStack((3, 32, 32), BREAST)
    assert [layer.in_features for layer in encoder if isinstance(layer, torch.nn.Linear)] == [256, 512, 512]
    assert encoder(torch.randn(3, 3, 32, 32)).shape == (3, 512)


def test_the_memory_layout_changes_no_number():
    encoder, images = ConvStack((3, 27, 27), dropout=0.5).eval(), torch.randn(4, 3, 27, 27)
    plain = images
    for layer in encoder:
        plain = layer(plain)
    torch.testing.assert_close(encoder(images), plain)


def test_weights_of_he_have_the_variance_of_two_over_what_comes_in():
    torch.manual_seed(0)
    for layer in ConvStack((3, 27, 27), init="he"):
        if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
            assert layer.weight.var().item() == pytest.approx(2 / layer.weight[0].numel(), rel=0.1)
            assert not layer.bias.any()


def test_images_are_told_apart_from_the_start_with_he_alone():
    torch.manual_seed(0)
    images, spread = torch.randn(20, 3, 32, 32), {}
    for init in ("he", "default"):
        spread[init] = ConvStack((3, 32, 32), BREAST, init=init)(images).std(0).mean().item()
    assert spread["he"] > 0.05
    assert spread["default"] < 0.005


@pytest.mark.parametrize(
    ("shape", "settings", "message"),
    [
        ((16,), {}, "encoder=conv_stack takes images"),
        ((3, 16, 16), {"convolutions": BREAST}, "images of 16x16 pixels vanish in encoder.convolutions"),
        ((3, 27, 27), {"fully_connected": ()}, "at least one of encoder.convolutions and one"),
        ((3, 27, 27), {"dropout": 1.0}, "encoder.dropout=1.0"),
    ],
)
def test_mistakes_are_named(shape, settings, message):
    with pytest.raises(UserError, match=message):
        ConvStack(shape, **settings)
