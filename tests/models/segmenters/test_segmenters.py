"""Segmenters keep one contract; their sizes are the papers'."""

import itertools

import pytest
import timm
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

from kd_mil.cli.command import CONFIG_DIR
from kd_mil.core.errors import UserError
from kd_mil.models.lite0_weights import load_published
from kd_mil.models.segmenters.attention import CrissCrossAttention
from kd_mil.models.segmenters.cam import CamClassifier, ClassActivation, TrunkClassifier, activation_probs
from kd_mil.models.segmenters.side_heads import SideHeads
from kd_mil.models.segmenters.timm_backbone import TimmSegmenter
from kd_mil.models.segmenters.unet import UNet
from kd_mil.models.segmenters.vgg import VggMIL, copy_imagenet_vgg


def built(name, shape=(3, 64, 96)):
    config = OmegaConf.load(CONFIG_DIR / "segmenter" / f"{name}.yaml")
    if "defaults" in config:
        base = OmegaConf.load(CONFIG_DIR / "segmenter" / f"{config.defaults[0]}.yaml")
        config = OmegaConf.merge(base, config)
        del config["defaults"]
    torch.manual_seed(0)
    return instantiate(config, _convert_="all")(instance_shape=shape).eval()


@pytest.mark.parametrize("name", ["vgg_mil", "sa_mil", "resnet_mil", "swin_mil", "lite0_mil", "unet"])
def test_every_segmenter_gives_maps_of_the_input_size(name):
    output = built(name)(torch.rand(2, 3, 64, 96))
    count = 1 if name == "unet" else 3
    assert output.sides.shape == (2, count, 64, 96)
    assert output.fused.shape == (2, 64, 96)
    assert output.sides.dtype == torch.float32
    assert 0 <= output.sides.min() <= output.sides.max() <= 1


@pytest.mark.parametrize(
    ("name", "weights"),
    [("vgg_mil", (0.3, 0.3, 0.4)), ("sa_mil", (0.2, 0.35, 0.45)), ("swin_mil", (0.3, 0.4, 0.3))],
)
def test_fusion_is_the_backbones_fixed_combination(name, weights):
    network = built(name)
    output = network(torch.rand(1, 3, 64, 96))
    expected = sum(weight * side for weight, side in zip(weights, output.sides[0], strict=True))
    torch.testing.assert_close(output.fused[0], expected)
    assert not any("fusion" in key for key, _ in network.named_parameters())


def test_vgg_mil_has_the_published_size():
    network = built("vgg_mil")
    assert sum(parameter.numel() for parameter in network.parameters()) == 1_738_243
    multiply_adds = []

    def count(layer, _, output):
        multiply_adds.append(layer.weight[0].numel() * output[0].numel())

    for layer in network.stages.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(count)
    network(torch.rand(1, 3, 64, 96))
    assert sum(multiply_adds) == 186_048 * 64 * 96


def test_side_outputs_are_taken_after_the_poolings():
    network = built("vgg_mil")
    seen = []
    for head in network.side_heads.heads:
        head.register_forward_hook(lambda _, inputs, output: seen.append(inputs[0].shape))
    network(torch.rand(1, 3, 64, 96))
    assert seen == [(1, 64, 32, 48), (1, 128, 16, 24), (1, 256, 8, 12)]


def test_swin_stages_have_strides_4_8_16():
    backbone = built("swin_mil").backbone
    assert backbone.feature_info.channels() == [96, 192, 384]
    assert backbone.feature_info.reduction() == [4, 8, 16]


def test_swin_maps_of_a_height_that_equals_a_stages_width_are_not_turned():
    """Images of 384 pixels have a first stage of 96 rows and 96 channels."""
    network, seen = built("swin_mil", (3, 384, 32)), []
    network.side_heads.register_forward_hook(lambda _, inputs, output: seen.extend(one.shape for one in inputs[0]))
    with torch.no_grad():
        network(torch.rand(1, 3, 384, 32))
    assert seen == [(1, 96, 96, 8), (1, 192, 48, 4), (1, 384, 24, 2)]


def test_logits_are_enlarged_before_they_are_squashed():
    heads = SideHeads([2], [1.0])
    features = torch.randn(1, 2, 3, 3) * 5
    enlarged = nn.functional.interpolate(heads.heads[0](features), (9, 9), mode="bilinear", align_corners=True)
    torch.testing.assert_close(heads([features], (9, 9)).fused, enlarged.sigmoid()[:, 0])


def test_criss_cross_attention_equals_a_loop_over_pixels():
    torch.manual_seed(0)
    layer = CrissCrossAttention(8)
    layer.scale.data.fill_(0.7)
    x = torch.randn(1, 8, 3, 4)
    query, key, value = (part(x)[0] for part in (layer.query, layer.key, layer.value))
    expected = x.clone()
    for row, column in itertools.product(range(3), range(4)):
        cross = {(row, other) for other in range(4)} | {(other, column) for other in range(3)}
        places = sorted(cross)
        scores = torch.stack([query[:, row, column] @ key[:, y, x_] for y, x_ in places]).softmax(0)
        gathered = sum(score * value[:, y, x_] for score, (y, x_) in zip(scores, places, strict=True))
        expected[0, :, row, column] += 0.7 * gathered
    torch.testing.assert_close(layer(x), expected)


def test_sa_mil_shares_its_attention_between_two_passes():
    plain, twice = built("vgg_mil"), built("sa_mil")
    calls = []
    twice.attention[0].register_forward_hook(lambda *_: calls.append(1))
    twice(torch.rand(1, 3, 64, 96))
    assert len(calls) == 2
    assert len(plain.attention) == 0


def test_imagenet_weights_land_in_order(monkeypatch):
    """The convolutions of VGG16 up to its third stage; a stand-in with the published architecture."""
    published = timm.create_model("vgg16", pretrained=False)
    monkeypatch.setattr("kd_mil.models.segmenters.vgg.pretrained_model", lambda name: published)
    network = VggMIL((3, 32, 32), pretrained=True)
    ours = [layer for layer in network.stages.modules() if isinstance(layer, nn.Conv2d)]
    for number, layer in zip((0, 2, 5, 7, 10, 12, 14), ours, strict=True):
        assert torch.equal(layer.weight, published.features[number].weight)
    with pytest.raises(UserError, match="widths"):
        copy_imagenet_vgg(network.stages, [3, 16, 32, 64])


def test_weights_of_a_vgg_come_from_a_file(tmp_path):
    """As torchvision saves them, of the first stages alone: nothing else is asked for."""
    shapes = [(out, width) for width, out in itertools.pairwise((3, 64, 64, 128, 128, 256, 256, 256))]
    state = {}
    for place, (out, width) in zip((0, 2, 5, 7, 10, 12, 14), shapes, strict=True):
        state |= {f"features.{place}.weight": torch.rand(out, width, 3, 3), f"features.{place}.bias": torch.rand(out)}
    torch.save(state, tmp_path / "vgg.pt")
    network = VggMIL((3, 32, 32), weights=str(tmp_path / "vgg.pt"))
    last = [layer for layer in network.stages.modules() if isinstance(layer, nn.Conv2d)][-1]
    assert torch.equal(last.weight, state["features.14.weight"])
    del state["features.14.bias"]
    torch.save(state, tmp_path / "vgg.pt")
    with pytest.raises(UserError, match=r"features\.14 is not that of a VGG16"):
        VggMIL((3, 32, 32), weights=str(tmp_path / "vgg.pt"))


def test_cam_is_positive_activation_times_the_image_probability():
    activation = torch.tensor([[[-1.0, 2.0], [4.0, 0.0]]])
    probs = activation_probs(ClassActivation(torch.tensor([0.0]), activation))
    torch.testing.assert_close(probs, torch.tensor([[[0.0, 0.25], [0.5, 0.0]]]))
    nothing = activation_probs(ClassActivation(torch.tensor([-3.0]), -activation.abs() - 1))
    assert not nothing.any()
    assert nothing.isfinite().all()


def test_cam_logit_is_that_of_pooled_features():
    torch.manual_seed(0)
    network = CamClassifier((3, 32, 32), widths=(4, 4, 8)).eval()
    images = torch.rand(2, 3, 32, 32)
    x = images
    for stage in network.stages:
        x = nn.functional.max_pool2d(stage(x), 2)
    weight, bias = network.classifier.weight[0, :, 0, 0], network.classifier.bias
    torch.testing.assert_close(network(images).logits, x.mean((2, 3)) @ weight + bias)


def test_unet_logits_and_map_agree():
    network = UNet((3, 32, 64)).eval()
    images = torch.rand(1, 3, 32, 64)
    torch.testing.assert_close(network.logits(images).sigmoid(), network(images).fused)


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "mobilenetv3_small_050", "resnet10t", "convnext_atto"])
def test_families_of_timm_take_weights_of_a_file(name, tmp_path):
    """Each cuts its stages out in another way; the maps must be those of the network whose weights were saved."""
    torch.manual_seed(0)
    whole = timm.create_model(name).eval()
    torch.save(whole.state_dict(), tmp_path / "weights.pt")
    network = TimmSegmenter((3, 32, 32), name, weights=str(tmp_path / "weights.pt")).eval()
    images = torch.rand(1, 3, 32, 32)
    expected = whole.forward_intermediates(images, indices=[0, 1, 2], intermediates_only=True)
    for found, own in zip(network.features(images), expected, strict=True):
        torch.testing.assert_close(found, own)
    assert network.channels == [one.shape[1] for one in expected]


def test_lite0_has_the_weights_of_its_package():
    network, whole = built("lite0_mil"), timm.create_model("tf_efficientnet_lite0").eval()
    load_published(whole, "segmenter")
    images = torch.rand(1, 3, 32, 32)
    expected = whole.forward_intermediates(images, indices=[1, 2, 3], intermediates_only=True)
    torch.testing.assert_close(network.features(images), list(expected))
    assert network.channels == [24, 40, 112]


def test_a_trunk_classifies_by_its_last_stage_and_without_its_side_heads():
    torch.manual_seed(0)
    network = TrunkClassifier(VggMIL((3, 32, 32), widths=(4, 4, 8))).eval()
    images = torch.rand(2, 3, 32, 32)
    weight, bias = network.classifier.weight[0, :, 0, 0], network.classifier.bias
    pooled = network.trunk.features(images)[-1].mean((2, 3))
    torch.testing.assert_close(network(images).logits, pooled @ weight + bias)
    assert network(images).activation.shape == (2, 32, 32)
    assert not any("side_heads" in name for name, _ in network.named_parameters())


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: VggMIL((3, 60, 60)), "divide by 8"),
        (lambda: VggMIL((512,)), "takes images"),
        (lambda: VggMIL((3, 64, 64), fusion_weights=(0.5, 0.5)), "3 weights"),
        (lambda: VggMIL((3, 64, 64), fusion_weights=(0.5, 0.5, 0.5)), "sum to 1"),
        (lambda: VggMIL((3, 64, 64), widths=(4, 4)), "3 stages"),
        (lambda: VggMIL((3, 64, 64), attention_passes=-1), "attention_passes=-1"),
        (lambda: TimmSegmenter((3, 64, 64), "resnet19"), "resnet19"),
        (lambda: TimmSegmenter((3, 64, 64), "resnet18", stages=(7, 8, 9)), "stages"),
        (lambda: UNet((3, 48, 48)), "divide by 32"),
        (lambda: TimmSegmenter((3, 64, 64), "resnet10t", weights="none.pt"), "segmenter.weights=none.pt: no such file"),
        (lambda: TrunkClassifier(UNet((3, 64, 64), "resnet10t")), "UNet does not"),
    ],
)
def test_mistakes_are_named(build, message):
    with pytest.raises(UserError, match=message):
        build()
