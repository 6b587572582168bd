"""Scaling, standardising and augmenting instances."""

import torch

from kd_mil.models.preprocess import Preprocess, random_dihedral


def test_pixels_become_floats_in_the_unit_interval():
    pixels = torch.tensor([[[[0, 51, 255]]]], dtype=torch.uint8)
    torch.testing.assert_close(Preprocess()(pixels), torch.tensor([[[[0.0, 0.2, 1.0]]]]))
    assert pixels.max() == 255, "the stored pixels must stay as they are"


def test_channel_statistics():
    values = Preprocess(mean=[0.5, 0.0], std=[0.5, 2.0])(torch.ones(1, 2, 3, 3))
    torch.testing.assert_close(values[0, :, 0, 0], torch.tensor([1.0, 0.5]))


def test_standardised_features_have_zero_mean_and_unit_variance():
    features = torch.randn(500, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 50.0, 0.0]) + 7
    preprocess = Preprocess(standardise=True)
    preprocess.fit(features)
    scaled = preprocess(features)
    torch.testing.assert_close(scaled.mean(0), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(scaled.std(0, correction=0)[:2], torch.ones(2))
    assert scaled[:, 2].abs().max() == 0, "a constant feature must not blow up"


def test_statistics_travel_in_the_state_dict():
    fitted = Preprocess(standardise=True)
    fitted.fit(torch.rand(10, 4))
    loaded = Preprocess(standardise=True)
    loaded.load_state_dict(fitted.state_dict())
    instances = torch.rand(2, 4)
    torch.testing.assert_close(loaded(instances), fitted(instances))


def test_augmentation_draws_all_eight_symmetries_and_only_those():
    image = torch.arange(9.0).view(1, 1, 3, 3)
    symmetries = {
        tuple(torch.rot90(flipped, turns, (-2, -1)).flatten().tolist())
        for flipped in (image, image.flip(-1))
        for turns in range(4)
    }
    torch.manual_seed(0)
    drawn = {tuple(one.flatten().tolist()) for one in random_dihedral(image.expand(400, 1, 3, 3))}
    assert drawn == symmetries
    assert len(symmetries) == 8


def test_no_augmentation_in_evaluation():
    preprocess = Preprocess(augment=True).eval()
    image = torch.arange(18.0).view(2, 1, 3, 3)
    assert torch.equal(preprocess(image), image)
