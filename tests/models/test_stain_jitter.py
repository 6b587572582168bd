"""Random changes of the staining."""

import numpy as np
import pytest
import torch
from skimage.color import rgb_from_hed

from kd_mil.core.errors import UserError
from kd_mil.models.preprocess import Preprocess
from kd_mil.models.stain_jitter import jitter_stain


def stained(*dyes: float) -> torch.Tensor:
    """One pixel with these densities of haematoxylin, eosin and the rest, by the law of Beer and Lambert."""
    return torch.from_numpy(10 ** -(np.array(dyes) @ rgb_from_hed)).float().view(1, 3, 1, 1)


def draws(monkeypatch: pytest.MonkeyPatch, factors: list[float], moves: list[float]) -> None:
    """Let the next random numbers give these multiples of the strength."""
    numbers = (torch.tensor([[factors], [moves]]) + 1) / 2
    monkeypatch.setattr(torch, "rand", lambda *shape, **kind: numbers)


def test_strength_zero_changes_nothing():
    images = torch.rand(5, 3, 4, 6) * 0.99 + 0.01
    torch.testing.assert_close(jitter_stain(images, 0.0), images)


def test_factors_multiply_and_moves_add_densities_of_dyes(monkeypatch):
    draws(monkeypatch, factors=[1.0, -0.5, 0.0], moves=[0.0, 0.25, 0.5])
    # at strength 0.2: .5 * 1.2, .4 * .9 + .05, .1 + .1
    torch.testing.assert_close(jitter_stain(stained(0.5, 0.4, 0.1), 0.2), stained(0.6, 0.41, 0.2))


def test_white_stays_white_without_moves(monkeypatch):
    draws(monkeypatch, factors=[1.0, 1.0, -1.0], moves=[0.0, 0.0, 0.0])
    torch.testing.assert_close(jitter_stain(torch.ones(1, 3, 2, 2), 0.2), torch.ones(1, 3, 2, 2))


def test_half_precision_around_it_changes_nothing():
    images = torch.rand(5, 3, 4, 6) * 0.99 + 0.01
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(jitter_stain(images, 0.0), images)


def test_images_change_by_themselves_and_stay_in_range():
    images = torch.tensor([0.0, 0.3, 1.0]).view(1, 3, 1, 1).expand(200, 3, 2, 2)
    changed = jitter_stain(images, 0.3)
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert torch.equal(changed, changed[:, :, :1, :1].expand_as(changed)), "one change for all pixels of an image"
    assert len(changed[:, :, 0, 0].unique(dim=0)) == 200


def test_patches_of_a_bag_change_alike():
    patches = torch.tensor([0.2, 0.3, 0.6]).view(1, 3, 1, 1).expand(5, 3, 1, 1)
    changed = jitter_stain(patches, 0.1, sizes=torch.tensor([2, 3])).flatten(1)
    assert torch.equal(changed[0], changed[1])
    assert torch.equal(changed[2], changed[3])
    assert torch.equal(changed[3], changed[4])
    assert not torch.allclose(changed[1], changed[2])


def test_training_alone_jitters():
    torch.manual_seed(0)
    preprocess, pixels = Preprocess(stain_jitter=0.1), torch.randint(1, 255, (4, 3, 5, 5), dtype=torch.uint8)
    assert not torch.allclose(preprocess(pixels), pixels / 255, atol=0.01)
    torch.testing.assert_close(preprocess.eval()(pixels), pixels / 255)


@pytest.mark.parametrize("pixels", [torch.zeros(2, 3, 4, 4), torch.zeros(2, 1, 4, 4, dtype=torch.uint8)])
def test_only_colour_images_are_stained(pixels):
    with pytest.raises(UserError, match=r"preprocess\.stain_jitter is for 8-bit RGB images"):
        Preprocess(stain_jitter=0.1)(pixels)


@pytest.mark.parametrize("strength", [-0.1, 1.0, float("nan")])
def test_strength_out_of_range(strength):
    with pytest.raises(UserError, match=r"preprocess\.stain_jitter=.*\[0, 1\)"):
        Preprocess(stain_jitter=strength)
