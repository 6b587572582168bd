from functools import partial
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from kd_mil.core.errors import UserError
from kd_mil.models.encoders.small import AlexNetCifar, BatchNorm1d, FeatureProjector, Identity, LeNet5, SmallCNN

CONF = Path(__file__).resolve().parents[3] / "conf"


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("encoder", "shape", "width"),
    [
        (AlexNetCifar, (3, 32, 32), 1728),
        (AlexNetCifar, (1, 15, 40), 192 * 1 * 4),
        (LeNet5, (1, 28, 28), 500),
        (LeNet5, (3, 16, 50), 500),
        (SmallCNN, (1, 8, 8), 256),
        (SmallCNN, (3, 27, 27), 256),
        (SmallCNN, (3, 64, 64), 256),
        (partial(SmallCNN, hidden=None), (1, 8, 8), 64),
        (partial(SmallCNN, hidden=None), (3, 64, 64), 64),
        (FeatureProjector, (20,), 512),
        (Identity, (20,), 20),
        (Identity, (1, 8, 8), 64),
    ],
)
def test_output_width_is_as_announced(encoder, shape, width):
    network = encoder(shape)
    assert network.out_features == width
    assert network.training, "finding the width must not leave the network in evaluation mode"
    assert network(torch.rand(3, *shape)).shape == (3, width)


def test_released_encoder_has_its_published_size():
    assert count(AlexNetCifar((3, 32, 32))) == 2_826_432


def test_lenet_has_the_layers_of_the_abmil_code():
    convolutions = (1 * 25 + 1) * 20 + (20 * 25 + 1) * 50
    assert count(LeNet5((1, 28, 28))) == convolutions + (50 * 4 * 4 + 1) * 500


def test_building_leaves_batch_statistics_untouched():
    network = AlexNetCifar((3, 32, 32))
    assert network[1].running_mean.abs().max() == 0
    assert network[1].num_batches_tracked == 0


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 27, 27)])
def test_group_norm_treats_each_instance_by_itself(shape):
    torch.manual_seed(0)
    images = torch.rand(4, *shape)
    network = SmallCNN(shape, norm="group")
    torch.testing.assert_close(network(images)[:1], network(images[:1]))
    network = SmallCNN(shape, norm="batch")
    assert (network(images)[:1] - network(images[:1])).abs().max() > 1e-3


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
def test_small_cnn_takes_one_instance_while_training(norm):
    assert SmallCNN((1, 8, 8), channels=(8, 16, 16, 8), norm=norm)(torch.rand(1, 1, 8, 8)).isfinite().all()


def test_lone_instance_is_normalised_by_running_statistics():
    """One value has no variance: PyTorch refuses it, and a bag of one must not end a run."""
    norm = BatchNorm1d(3)
    norm.running_mean.fill_(2)
    before = norm.running_mean.clone()
    torch.testing.assert_close(norm(torch.full((1, 3), 2.0)), torch.zeros(1, 3))
    assert torch.equal(norm.running_mean, before)
    assert norm(torch.randn(50, 3)).mean(0).abs().max() < 1e-6


@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
def test_feature_projector_norms(norm):
    torch.manual_seed(0)
    features = torch.randn(64, 20) * 5 + 3
    projected = FeatureProjector((20,), out_features=16, norm=norm)(features)
    spread = {"batch": projected.mean(0), "layer": projected.mean(1), "none": torch.ones(1)}[norm]
    assert (spread.abs().max() < 1e-5) == (norm != "none")
    assert FeatureProjector((20,), 16, norm, relu=True)(features).min() == 0


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: AlexNetCifar((3, 14, 32)), "encoder=alexnet_cifar needs images of at least 15x15 pixels"),
        (lambda: LeNet5((1, 8, 8)), "encoder=lenet5 needs images of at least 16x16 pixels, but they are 8x8"),
        (
            lambda: SmallCNN((512,)),
            r"encoder=small_cnn takes images \(C, H, W\), but instances have the shape \(512,\)",
        ),
        (lambda: SmallCNN((3, 27, 27), channels=(30,), norm="group"), "groups of 8 channels, but a stage has 30"),
        (lambda: SmallCNN((3, 27, 27), channels=()), r"encoder.channels=\[\]"),
        (lambda: FeatureProjector((3, 27, 27)), "encoder=features takes feature vectors"),
    ],
)
def test_wrong_settings(build, message):
    with pytest.raises(UserError, match=message):
        build()


BUILT = {path.stem for path in (CONF / "encoder").glob("*.yaml") if "\npreset: " not in path.read_text()} | {"timm"}
"""Presets of published networks are in test_presets.py: a thousand million weights each."""


@pytest.mark.parametrize("name", sorted(BUILT - {"custom", "slide2vec"}))
def test_configuration_builds(name):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        factory = instantiate(compose(f"encoder/{name}").encoder, _convert_="all")
    shape = (20,) if name in ("features", "identity") else (3, 32, 32)
    network = factory(instance_shape=shape)
    assert network(torch.rand(2, *shape)).shape == (2, network.out_features)
