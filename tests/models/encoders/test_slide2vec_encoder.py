"""Encoders of slide2vec: its own where it is installed, and a registry of the same form where it is not."""

import sys
import types

import pytest
import timm
import torch
from PIL import Image
from torch import nn
from torchvision.transforms import v2

from kd_mil.core.errors import UserError
from kd_mil.models.encoders.slide2vec_encoder import Slide2VecEncoder
from kd_mil.models.encoders.tile_encoder import TileEncoder

CPU = torch.device("cpu")
MEAN, STD = (0.7, 0.5, 0.6), (0.2, 0.3, 0.2)


class Colours:
    """Mean colours after its transform, twice for `cls_patch_mean`: a tile encoder as slide2vec writes them."""

    transform = v2.Compose(
        [
            v2.ToImage(),
            v2.Resize(40, antialias=True),
            v2.CenterCrop(32),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(mean=MEAN, std=STD),
        ]
    )

    def __init__(self, output_variant=None):
        self._model, self.device, self.twice = nn.Linear(3, 3), CPU, output_variant == "cls_patch_mean"

    def get_transform(self):
        return self.transform

    def encode_tiles(self, batch):
        assert batch.shape[-1] == 32
        mean = batch.mean((2, 3))
        return torch.cat([mean, mean], 1) if self.twice else mean

    @property
    def encode_dim(self):
        return 6 if self.twice else 3

    def to(self, device):
        self.device = device


class Gated(Colours):
    def __init__(self, output_variant=None):
        raise ImportError("No module named 'conch'")


def record(transform):
    steps = {type(step).__name__: step for step in transform.transforms}
    resize, crop, normalise = (steps[name] for name in ("Resize", "CenterCrop", "Normalize"))
    return {
        "resize": {
            "size": list(resize.size),
            "interpolation": str(getattr(resize.interpolation, "value", resize.interpolation)),
        },
        "center_crop": {"size": list(crop.size)},
        "normalize": {"mean": list(normalise.mean), "std": list(normalise.std)},
    }


@pytest.fixture
def stand_in(monkeypatch):
    """A library of the form of slide2vec with three encoders."""
    facts = {
        "level": "tile",
        "source": "owner/model",
        "supported_spacing_um": [0.5, 1.0],
        "output_variants": {"cls": {}, "cls_patch_mean": {}},
        "default_output_variant": "cls_patch_mean",
    }
    entries = {"colours": (Colours, facts), "slide": (Colours, facts | {"level": "slide"}), "gated": (Gated, facts)}
    registry = types.SimpleNamespace(
        names=lambda: list(entries), info=lambda name: entries[name][1], require=lambda name: entries[name][0]
    )
    modules = {"slide2vec": {}, "slide2vec.encoders": {"encoder_registry": registry}, "slide2vec.runtime": {}}
    modules["slide2vec.runtime.feature_identity"] = {"transform_record": record}
    for name, content in modules.items():
        module = types.ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)


def by_hand(tiles):
    return torch.stack([Colours.transform(Image.fromarray(tile.numpy())) for tile in tiles]).mean((2, 3))


def test_tiles_are_shown_as_the_library_shows_them(stand_in):
    tiles = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8)
    config = {"name": "colours", "output": "cls", "preset": "mine"}
    encoder = TileEncoder(lambda **shape: Slide2VecEncoder(name="colours", output="cls", **shape), config, 64, CPU)
    torch.testing.assert_close(encoder(tiles), by_hand(tiles), rtol=0, atol=2e-3)
    assert (encoder.num_features, encoder.identity["output"], encoder.wanted_mpp) == (3, "cls", [0.5, 1.0])
    expected = {"size": 40, "crop": 32, "interpolation": "bilinear"}
    assert {name: encoder.transform[name] for name in expected} == expected
    assert encoder.transform["mean"] == pytest.approx(MEAN)
    assert Slide2VecEncoder((3, 64, 64), "colours").out_features == 6
    assert not any(parameter.requires_grad for parameter in Slide2VecEncoder((3, 64, 64), "colours").parameters())


def test_a_transform_that_cannot_be_read_is_applied_image_by_image(stand_in, monkeypatch):
    """It also turns the image upside down, which no record of its steps says."""
    odd = v2.Compose([v2.RandomHorizontalFlip(1.0), *Colours.transform.transforms, v2.Lambda(lambda image: image + 1)])
    monkeypatch.setattr(Colours, "transform", odd)
    tiles = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    encoder = Slide2VecEncoder((3, 64, 64), "colours", "cls")
    torch.testing.assert_close(encoder(tiles.permute(0, 3, 1, 2) / 255), by_hand(tiles))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "colour"}, "encoder.name=colour: not a tile encoder of slide2vec, did you mean colours"),
        ({"name": None}, "encoder.name=None: not a tile encoder of slide2vec. It has colours, gated"),
        ({"name": "slide"}, "encoder.name=slide: not a tile encoder"),
        ({"name": "colours", "output": "mean"}, "encoder.output=mean: colours has cls, cls_patch_mean"),
        ({"name": "gated"}, r"encoder.name=gated needs another library \(No module named 'conch'\)"),
    ],
)
def test_wrong_settings(stand_in, settings, message):
    with pytest.raises(UserError, match=message):
        Slide2VecEncoder((3, 64, 64), **settings)
    with pytest.raises(UserError, match="encoder=slide2vec takes RGB images"):
        Slide2VecEncoder((1, 64, 64), **settings)


def test_without_the_library_one_line_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "slide2vec.encoders", None)
    with pytest.raises(UserError, match=r"pip install 'kd-mil\[foundation\]'"):
        Slide2VecEncoder((3, 64, 64), "virchow2")


@pytest.mark.parametrize("name", ["virchow2", "uni", "h-optimus-1", "gigapath", "lunit"])
def test_features_are_those_of_the_library(name, monkeypatch):
    """On small networks without weights; where slide2vec is installed."""
    library = pytest.importorskip("slide2vec.encoders")
    small = {"embed_dim": 48, "depth": 1, "num_heads": 2, "img_size": 224}
    create = timm.create_model

    def without_weights(_, **options):
        torch.manual_seed(0)
        normalisation = {"mean": MEAN, "std": STD, "input_size": (3, 224, 224), "crop_pct": 0.9}
        return create(
            "vit_tiny_patch16_224", pretrained_cfg_overlay=normalisation, **options | small | {"pretrained": False}
        )

    monkeypatch.setattr(timm, "create_model", without_weights)
    theirs = library.encoder_registry.require(name)()
    tiles = torch.randint(0, 256, (2, 256, 256, 3), dtype=torch.uint8)
    shown = torch.stack([theirs.get_transform()(Image.fromarray(tile.numpy())) for tile in tiles])
    with torch.inference_mode():
        expected = theirs.encode_tiles(shown)
        features = Slide2VecEncoder((3, 256, 256), name)(tiles.permute(0, 3, 1, 2) / 255)
    torch.testing.assert_close(features, expected, rtol=0.02, atol=0.02)
