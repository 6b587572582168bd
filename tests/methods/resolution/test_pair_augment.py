"""Both members of a pair change alike: on an asymmetric image, for every flip and rotation."""

import itertools
import math

import numpy as np
import pytest
import torch
from PIL import Image

from kd_mil.core.errors import UserError
from kd_mil.data.pairs.stack import downsampled, pixels
from kd_mil.methods.resolution.pair_augment import Draw, PairAugment, recolour, rotate_freely, turn


def asymmetric(height=64, width=96):
    """A picture without any symmetry: a wedge of one colour, a corner of another."""
    y, x = np.mgrid[:height, :width]
    image = np.full((height, width, 3), 230, dtype=np.uint8)
    image[(y > 10) & (y < 10 + x / 3)] = (180, 40, 90)
    image[: height // 4, width // 2 :] = (60, 90, 200)
    return Image.fromarray(image)


def still(count=1, **changes):
    draw = PairAugment((), "none", 0, 0, 0, 0).draw(count)
    return draw._replace(**changes)


@pytest.mark.parametrize(("flip", "turns"), list(itertools.product([(0, 0), (1, 0), (0, 1), (1, 1)], range(4))))
def test_turning_and_reducing_commute(flip, turns):
    """The small member turned is the turned large member reduced: the pair still shows one scene."""
    original = asymmetric()
    draw = still(flip=torch.tensor([flip], dtype=torch.bool), quarter_turns=torch.tensor([turns]))
    small = turn(pixels(downsampled(original, 4)), draw, 0)
    large = turn(pixels(original), draw, 0)
    reduced = pixels(downsampled(Image.fromarray(large.permute(1, 2, 0).numpy()), 4))
    assert small.shape == reduced.shape == (3, *((24, 16) if turns % 2 else (16, 24)))
    assert (small.int() - reduced.int()).abs().max() <= 1
    if (flip, turns) not in (((0, 0), 0), ((1, 1), 2)):
        assert not torch.equal(large, pixels(original)), "the picture would hide a mistake"


@pytest.mark.parametrize("angle", [0.3, 1.9, 4.0])
def test_free_rotation_turns_both_members_alike(angle):
    original = asymmetric(64, 64)
    turned = [
        rotate_freely(pixels(downsampled(original, factor)).float()[None] / 255, torch.tensor([angle]))
        for factor in (1, 4)
    ]
    reduced = torch.nn.functional.avg_pool2d(turned[0], 4)
    assert (reduced - turned[1]).abs().mean() < 0.02
    straight = pixels(downsampled(original, 4)).float() / 255
    assert (reduced - straight).abs().mean() > 0.05, "the picture would hide a mistake"


def test_free_rotation_by_a_quarter_is_a_quarter_turn():
    image = pixels(asymmetric(48, 48)).float()[None] / 255
    assert torch.allclose(rotate_freely(image, torch.tensor([math.pi / 2])), image.rot90(1, (-2, -1)), atol=1e-4)


def test_free_rotation_keeps_shapes_of_oblong_images():
    """A disc stays a disc: the aspect ratio is in the rotation."""
    y, x = torch.meshgrid(torch.arange(60.0), torch.arange(100.0), indexing="ij")
    disc = (((y - 29.5) ** 2 + (x - 49.5) ** 2) < 20**2).float()[None, None]
    turned = rotate_freely(disc, torch.tensor([0.7]))
    middle = (slice(None), slice(None), slice(None), slice(25, 75))  # the corners show mirrored pieces of it
    assert (turned - disc)[middle].abs().mean() < 0.015


def test_no_change_is_no_change():
    image = pixels(asymmetric())
    draw = still()
    assert torch.equal(turn(image, draw, 0), image)
    assert torch.allclose(recolour(image[None], draw, torch.tensor([0])), image[None] / 255, atol=1e-5)


def test_colours_of_both_members_change_alike():
    draw = PairAugment(()).draw(1)
    large, small = (
        recolour(pixels(downsampled(asymmetric(), factor))[None], draw, torch.tensor([0])) for factor in (1, 4)
    )
    flat = (slice(None), slice(None), -8, 8)  # a uniform corner
    assert torch.allclose(large[0, :, -30, 5], small[0, :, -8, 1], atol=0.02)
    assert not torch.allclose(large[flat], pixels(asymmetric())[None][flat] / 255, atol=0.02)


def test_colour_factors_mean_what_torchvision_means():
    """Where nothing is clipped, brightness, contrast and saturation are torchvision's."""
    from torchvision.transforms import functional as tv

    image = (torch.rand(1, 3, 8, 8) * 100 + 60).to(torch.uint8)
    values = image / 255
    for name, adjust in (
        ("brightness", tv.adjust_brightness),
        ("contrast", tv.adjust_contrast),
        ("saturation", tv.adjust_saturation),
    ):
        changed = recolour(image, still(**{name: torch.tensor([1.2])}), torch.tensor([0]))
        assert torch.allclose(changed, adjust(values, 1.2), atol=2e-3), name


def test_hue_turns_by_the_angle_and_keeps_grey():
    grey = torch.full((1, 3, 2, 2), 120, dtype=torch.uint8)
    draw = still(hue=torch.tensor([0.2]))
    assert torch.allclose(recolour(grey, draw, torch.tensor([0])), grey / 255, atol=2e-3)
    colour = torch.tensor([150, 110, 90], dtype=torch.uint8).view(1, 3, 1, 1)
    full_turn = recolour(colour, still(hue=torch.tensor([1.0])), torch.tensor([0]))
    assert torch.allclose(full_turn, colour / 255, atol=1e-3)


def test_every_image_has_its_own_draw_and_groups_keep_it():
    images = (torch.rand(6, 3, 5, 5) * 255).to(torch.uint8)
    draw = PairAugment().draw(6)
    together = recolour(images, draw, torch.arange(6))
    for at in range(6):
        assert torch.allclose(recolour(images[at : at + 1], draw, torch.tensor([at]))[0], together[at], atol=1e-5)
    assert len(set(draw.hue.tolist())) == 6


def test_draw_follows_the_global_seed_and_the_settings():
    torch.manual_seed(3)
    first = PairAugment().draw(50)
    torch.manual_seed(3)
    assert all(torch.equal(one, other) for one, other in zip(first, PairAugment().draw(50), strict=True))
    torch.manual_seed(3)
    horizontal = PairAugment(flips=["horizontal"], rotate="none").draw(50)
    assert torch.equal(horizontal.flip[:, 0], first.flip[:, 0])
    assert not horizontal.flip[:, 1].any()
    assert not horizontal.quarter_turns.any()
    assert set(first.quarter_turns.tolist()) == {0, 1, 2, 3}
    assert isinstance(first, Draw)


@pytest.mark.parametrize("settings", [{"hue": 0.7}, {"brightness": 1.1}, {"contrast": -0.1}])
def test_mistakes(settings):
    [(name, value)] = settings.items()
    with pytest.raises(UserError, match=f"augment.{name}={value}"):
        PairAugment(**settings)
