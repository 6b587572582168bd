from functools import partial

import pytest
import timm
import torch

from kd_mil.core.errors import UserError
from kd_mil.models.encoders.timm_encoder import TimmEncoder


def test_width_is_what_comes_out():
    """Some models announce another number of features than they give without a classifier."""
    encoder = TimmEncoder((1, 32, 32), "mobilenetv3_small_050")
    assert encoder.backbone.num_features != encoder.out_features
    assert encoder(torch.rand(2, 1, 32, 32)).shape == (2, encoder.out_features)


def test_image_size_of_a_transformer():
    encoder = TimmEncoder((3, 32, 32), "vit_tiny_patch16_224", img_size=32)
    assert encoder(torch.rand(1, 3, 32, 32)).shape == (1, encoder.out_features)


def test_random_weights_take_pixels_as_they_are():
    encoder = TimmEncoder((3, 32, 32), "resnet10t").eval()
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(encoder(images), encoder.backbone(images))


@pytest.mark.parametrize("channels", [1, 3])
def test_pretrained_weights_bring_their_normalisation(channels, monkeypatch):
    without_download = partial(timm.create_model, "resnet10t", num_classes=0, in_chans=channels)
    monkeypatch.setattr(timm, "create_model", lambda *args, **options: without_download())
    encoder = TimmEncoder((channels, 32, 32), "resnet10t", pretrained=True).eval()
    images = torch.rand(2, channels, 32, 32)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    if channels == 1:
        mean, std = mean.mean(), std.mean()
    expected = encoder.backbone((images - mean.view(-1, 1, 1)) / std.view(-1, 1, 1))
    torch.testing.assert_close(encoder(images), expected)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet19", {}, r"'resnet19' is not a model of timm .*: did you mean .*resnet18"),
        ("zzz", {}, r"'zzz' is not a model of timm"),
        ("resnet18.no_such_tag", {"pretrained": True}, "Invalid pretrained tag"),
        (
            "swin_tiny_patch4_window7_224",
            {"img_size": 224, "resize": 32},
            r"cannot take 32x32 images .*set encoder.img_size",
        ),
        ("vit_tiny_patch16_224", {"crop": 225}, r"encoder.crop=225 is more than the image"),
        (
            "vit_tiny_patch16_224",
            {"model_args": {"act_layer": "SiLuu"}},
            r"act_layer=SiLuu: no layer .*did you mean SiLU",
        ),
        ("resnet18", {"pool": "cls"}, "encoder.pool=cls is for vision transformers"),
        ("vit_tiny_patch16_224", {"model_args": {"global_pool": ""}}, "encoder.pool=null: the network gives tokens"),
        ("resnet18", {"model_args": {"depht": 3}}, "encoder.model_args does not suit resnet18 .*depht"),
        ("resnet18", {"weights": "no.pth"}, "encoder.weights=no.pth: no such file or folder"),
        (
            "hf-hub:MahmoodLab/UNI",
            {"weights": "no.pth"},
            "encoder.weights=no.pth: name the network, encoder.name=ARCHIT",
        ),
        ("resnet18", {"weights": ""}, "encoder.weights= is empty"),
        ("resnet18", {"resize": 0}, "encoder.resize=0: must be a whole number, at least 1"),
        ("resnet18", {"mpp": [0.5, -1]}, "encoder.mpp=-1: must be above 0"),
        ("resnet18", {"img_size": 32}, "encoder.img_size does not suit resnet18"),
    ],
)
def test_wrong_settings(name, options, message):
    with pytest.raises(UserError, match=message):
        TimmEncoder((3, 32, 32), name, **options)


def test_needs_images():
    with pytest.raises(UserError, match="takes images"):
        TimmEncoder((512,), "resnet18")


def test_a_lone_image_takes_running_statistics_in_training():
    """One image of one pixel after the last stage has no variance to normalise by; its bag must not end the run."""
    encoder = TimmEncoder((3, 32, 32), "resnet18").train()
    image = torch.rand(1, 3, 32, 32)
    in_training = encoder(image)
    assert encoder.backbone.training
    torch.testing.assert_close(in_training, encoder.eval()(image))


def test_a_transformer_gets_the_whole_image_at_its_size():
    with pytest.warns(UserWarning, match="images of 32x32 pixels are enlarged to 224"):
        encoder = TimmEncoder((3, 32, 32), "vit_tiny_patch16_224").eval()
    images = torch.rand(1, 3, 32, 32)
    enlarged = torch.nn.functional.interpolate(images, (224, 224), mode="bicubic", antialias=True).clamp(0, 1)
    torch.testing.assert_close(encoder(images), encoder.backbone(enlarged))


def test_frozen_weights_stay_as_they_are_and_pass_gradients():
    encoder = TimmEncoder((3, 32, 32), "resnet10t", frozen=True).train()
    before, images = encoder.backbone.bn1.running_mean.clone(), torch.rand(3, 3, 32, 32, requires_grad=True)
    encoder(images).sum().backward()
    assert images.grad.abs().sum() > 0
    assert torch.equal(encoder.backbone.bn1.running_mean, before)
    assert all(parameter.grad is None for parameter in encoder.parameters())
