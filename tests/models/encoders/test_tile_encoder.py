"""Tiles to features: what happens to pixels on the way, and the identity that goes with the features."""

from functools import partial

import pytest
import torch
from torch import nn

from kd_mil.core.errors import UserError
from kd_mil.models.encoders.tile_encoder import TileEncoder, best_precision, weights_hash
from kd_mil.models.encoders.timm_encoder import TimmEncoder

CPU = torch.device("cpu")
TIMM = "kd_mil.models.encoders.timm_encoder.TimmEncoder"


class MeanColour(nn.Module):
    """Three features that anyone can compute, after the encoder's own normalisation."""

    out_features = 3

    def __init__(self, instance_shape, std=1.0):
        super().__init__()
        self.shape = instance_shape
        self.register_buffer("mean", torch.tensor([0.5, 0.25, 0.0]))
        self.register_buffer("std", torch.full((3,), std))

    def forward(self, images):
        assert tuple(images.shape[1:]) == tuple(self.shape)
        return (images.mean(dim=(2, 3)) - self.mean) / self.std


def timm_encoder(name, tile_size=32, **options):
    config = {"_target_": TIMM, "name": name, **options}
    return TileEncoder(partial(TimmEncoder, name=name, **options), config, tile_size, CPU)


def test_pixels_come_in_0_to_1_by_channel():
    encoder = TileEncoder(MeanColour, {"_target_": "package.MeanColour"}, 8, CPU)
    tiles = torch.empty(2, 8, 8, 3, dtype=torch.uint8)
    tiles[0], tiles[1] = torch.tensor([255, 0, 51]), torch.tensor([0, 255, 0])
    expected = torch.tensor([[0.5, -0.25, 0.2], [-0.5, 0.75, 0.0]])
    torch.testing.assert_close(encoder(tiles), expected)
    assert encoder.transform == {"size": 8, "interpolation": "bicubic", "mean": [0.5, 0.25, 0.0], "std": [1, 1, 1]}
    assert encoder.identity["name"] == "MeanColour"
    assert encoder.identity["features"] == 3


def test_the_encoder_is_frozen_and_the_same_by_seed():
    one, again = timm_encoder("resnet10t"), timm_encoder("resnet10t")
    tiles = torch.randint(0, 256, (5, 32, 32, 3), dtype=torch.uint8)
    features = one(tiles)
    assert features.shape == (5, 512)
    assert torch.equal(features, again(tiles))
    torch.testing.assert_close(features[:2], one(tiles[:2]))  # batch statistics would differ
    assert one.identity["weights"] == again.identity["weights"]
    config = {"_target_": TIMM, "name": "resnet10t"}
    other = TileEncoder(partial(TimmEncoder, name="resnet10t"), config, 32, CPU, seed=1)
    assert other.identity["weights"] != one.identity["weights"]


def test_building_does_not_touch_the_random_state():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    timm_encoder("resnet10t")
    assert torch.equal(torch.rand(1), expected)


def test_an_encoder_of_fixed_size_gets_the_whole_tile_resized():
    """A vision transformer for 160 pixels takes tiles of 64 as they are enlarged by hand."""
    encoder = timm_encoder("test_vit", 64)
    assert encoder.transform["size"] == 160
    tiles = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    images = nn.functional.interpolate(tiles.permute(0, 3, 1, 2) / 255, (160, 160), mode="bicubic", antialias=True)
    by_hand = timm_encoder("test_vit", 160)._encoder(images.clamp(0, 1))
    torch.testing.assert_close(encoder(tiles), by_hand, rtol=1e-4, atol=1e-5)
    assert timm_encoder("test_vit", 64, img_size=64).transform["size"] == 64


def test_the_hash_tells_any_change():
    layer = nn.Linear(3, 2)
    before = weights_hash(layer)
    assert len(before) == 16
    assert weights_hash(layer) == before
    with torch.no_grad():
        layer.bias[0] += 1e-6
    assert weights_hash(layer) != before
    reshaped = nn.Linear(2, 3)
    reshaped.weight.data, reshaped.bias.data = layer.weight.data.reshape(3, 2), layer.bias.data
    assert weights_hash(reshaped) != weights_hash(layer)


def test_bfloat16_is_near_and_recorded():
    plain = TileEncoder(MeanColour, {}, 8, CPU)
    half = TileEncoder(MeanColour, {}, 8, CPU, precision="bfloat16")
    assert best_precision(CPU) == plain.precision == plain.identity["precision"] == "float32"
    assert half.identity["precision"] == "bfloat16"
    tiles = torch.randint(0, 256, (4, 8, 8, 3), dtype=torch.uint8)
    torch.testing.assert_close(half(tiles), plain(tiles), atol=0.02, rtol=0)
    with pytest.raises(UserError, match="precision=half: choose float32, bfloat16 or null"):
        TileEncoder(MeanColour, {}, 8, CPU, precision="half")


def test_an_unknown_model_is_one_line():
    with pytest.raises(UserError, match="did you mean"):
        timm_encoder("resnet19")
