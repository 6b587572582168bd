"""Rectangles of negative images in positive ones: where they lie, what they hold, and what losses make of them."""

import math

import pytest
import torch

from kd_mil.core.errors import UserError
from kd_mil.methods.ifkd.losses import (
    distillation_loss,
    generalised_mean,
    polar_dice,
    teacher_dice,
    teacher_gm_bce,
    teacher_targets,
)
from kd_mil.methods.ifkd.pasting import paste_negatives, rectangles
from tests.support.tiny import fit
from tests.support.tiny_images import tiny_glands, tiny_ifkd

LABELS = torch.tensor([1, 0, 1, 1, 0])


def grey_levels(count=5):
    """Images whose pixels say which image they are of."""
    return torch.arange(count).float().view(-1, 1, 1, 1).expand(count, 3, 16, 16).contiguous()


def test_rectangles_by_hand():
    """Sides of a quarter to three quarters of 8 pixels; the place is a share of the room left."""
    top_left, bottom_right = rectangles(torch.tensor([[0.5, 0.0, 0.0, 0.0], [1.0, 0.5, 1.0, 1.0]]), 8, 8)
    expected = torch.zeros(2, 8, 8, dtype=torch.bool)
    expected[0, :4, :2] = True
    expected[1, 2:, 4:] = True
    assert torch.equal(top_left, expected[0])
    assert torch.equal(bottom_right, expected[1])


def test_positive_images_get_pixels_of_negative_ones_and_keep_some_of_their_own():
    torch.manual_seed(0)
    given = grey_levels()
    donors = set()
    for _ in range(20):
        images, pasted = paste_negatives(given, LABELS, 1.0)
        assert torch.equal(images[LABELS == 0], given[LABELS == 0])
        assert not pasted[LABELS == 0].any()
        changed = (images != given).any(1)
        assert torch.equal(changed, pasted)
        assert (pasted[LABELS > 0].flatten(1).float().mean(1) > 1 / 32).all()
        assert not pasted.flatten(1).all(1).any()
        donors |= set(images.transpose(0, 1)[0][pasted].tolist())
    assert donors == {1.0, 4.0}
    assert torch.equal(given, grey_levels())


def test_a_share_of_the_positive_images():
    torch.manual_seed(0)
    labels = torch.ones(400, dtype=torch.long)
    labels[0] = 0
    _, pasted = paste_negatives(torch.rand(400, 1, 8, 8), labels, 0.3)
    assert 0.2 < pasted.flatten(1).any(1).float().mean() < 0.4


def test_nothing_is_pasted_without_a_negative_image_or_at_a_share_of_zero():
    images, pasted = paste_negatives(grey_levels(), torch.ones(5, dtype=torch.long), 1.0)
    assert torch.equal(images, grey_levels())
    assert not pasted.any()
    state = torch.get_rng_state()
    images, pasted = paste_negatives(grey_levels(), LABELS, 0.0)
    assert pasted is None
    assert torch.equal(torch.get_rng_state(), state)


def test_losses_leave_pasted_pixels_to_the_background():
    """One positive image of two pixels, the second of which is pasted: by hand."""
    fused, labels, pasted = torch.tensor([[[0.8, 0.4]]]), torch.tensor([1]), torch.tensor([[[False, True]]])
    sides = fused[:, None]
    assert generalised_mean(fused, pasted=pasted).item() == pytest.approx(0.8)
    assert torch.equal(teacher_targets(sides, labels, pasted), torch.tensor([[[[0.8, 0.0]]]]))
    assert teacher_gm_bce(sides, fused, labels, pasted=pasted).item() == pytest.approx(
        2 * (-math.log(0.8) - math.log(0.6)), rel=1e-6
    )
    mask = torch.tensor([[[1.0, 0.0]]])
    torch.testing.assert_close(teacher_dice(sides, fused, labels, pasted), 2 * polar_dice(fused, mask, labels))
    target = torch.tensor([[[0.8, 0.0]]])
    found = distillation_loss(sides, fused, sides, fused, labels, "fusion", pasted)
    torch.testing.assert_close(found, 2 * polar_dice(fused, target, labels))


def test_a_mask_of_nothing_pasted_changes_no_loss():
    sides, fused = torch.rand(3, 2, 4, 4), torch.rand(3, 4, 4)
    labels, nothing = torch.tensor([1, 0, 1]), torch.zeros(3, 4, 4, dtype=torch.bool)
    for loss in (teacher_dice, teacher_gm_bce):
        torch.testing.assert_close(loss(sides, fused, labels, pasted=nothing), loss(sides, fused, labels))


@pytest.mark.parametrize("stage_one", ["dice", "gm_bce"])
def test_both_stages_train_on_pasted_images(stage_one):
    plain, pasting = (tiny_ifkd(stage_one=stage_one, paste=paste) for paste in (0.0, 1.0))
    for method in (plain, pasting):
        fit(method, tiny_glands(), epochs=4)
    for role in ("first_teacher", "student"):
        weights = [torch.cat([w.flatten() for w in getattr(m, role).parameters()]) for m in (plain, pasting)]
        assert weights[1].isfinite().all()
        assert not torch.equal(*weights)


@pytest.mark.parametrize("paste", [-0.1, 1.5, math.nan])
def test_a_share_out_of_range_is_a_line(paste):
    with pytest.raises(UserError, match=r"method\.paste"):
        tiny_ifkd(paste=paste)
