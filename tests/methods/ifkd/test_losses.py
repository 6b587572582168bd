"""IFKD's losses: values by hand, plain loops over pixels as oracles, and what the readings have in common."""

import math

import pytest
import torch

from kd_mil.methods.base.pixel_losses import soft_dice
from kd_mil.methods.ifkd import losses
from kd_mil.methods.ifkd.losses import (
    distillation_loss,
    easy_weights,
    generalised_mean,
    polar_dice,
    teacher_dice,
    teacher_gm_bce,
    teacher_targets,
    weighted_cross_entropy,
)

LABELS = torch.tensor([1, 0, 1])


def maps(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def dice_by_hand(probs, targets):
    both, one, other = 0.0, 0.0, 0.0
    for p, t in zip(probs.flatten().tolist(), targets.flatten().tolist(), strict=True):
        both, one, other = both + p * t, one + p, other + t
    return 1 - (2 * both + 1) / (one + other + 1 + 1e-7)


def polar_by_hand(probs, targets, label):
    return dice_by_hand(probs, targets) if label else dice_by_hand(1 - probs, 1 - targets)


def test_dice_of_constant_maps():
    ones, zeros = torch.ones(1, 5, 8), torch.zeros(1, 5, 8)
    assert soft_dice(ones, ones).item() == pytest.approx(0, abs=1e-6)
    assert soft_dice(zeros, zeros).item() == pytest.approx(0, abs=1e-6)
    assert soft_dice(zeros, ones).item() == pytest.approx(1 - 1 / 41, abs=1e-6)


def test_dice_equals_a_loop_over_pixels():
    probs, targets = maps(3, 4, 6), maps(3, 4, 6, seed=1)
    expected = [polar_by_hand(p, t, label) for p, t, label in zip(probs, targets, LABELS, strict=True)]
    torch.testing.assert_close(polar_dice(probs, targets, LABELS), torch.tensor(expected))


def test_polarity_scores_negative_images_on_their_background():
    """An almost empty map is nearly right for a negative image and nearly all wrong for a positive one."""
    probs = torch.full((2, 16, 16), 0.01)
    labels = torch.tensor([0, 1])
    targets = labels.float().view(-1, 1, 1).expand_as(probs)
    negative, positive = polar_dice(probs, targets, labels)
    assert negative < 0.01
    assert positive > 0.95


def test_teacher_losses_sum_over_all_maps():
    sides, fused = maps(3, 2, 4, 4), maps(3, 4, 4, seed=1)
    every = [sides[:, 0], sides[:, 1], fused]
    dice, cross_entropy = torch.zeros(3), torch.zeros(3)
    for image, label in enumerate(LABELS.tolist()):
        for own in every:
            dice[image] += polar_by_hand(own[image], torch.full((4, 4), float(label)), label)
            prob = sum(p**4 for p in own[image].flatten().tolist()) / 16
            prob = prob**0.25
            cross_entropy[image] -= math.log(prob if label else 1 - prob)
    torch.testing.assert_close(teacher_dice(sides, fused, LABELS), dice)
    torch.testing.assert_close(teacher_gm_bce(sides, fused, LABELS), cross_entropy)


def test_generalised_mean():
    assert generalised_mean(torch.full((1, 9, 9), 0.3)).item() == pytest.approx(0.3)
    lone = torch.zeros(1, 256, 256)
    lone[0, 7, 9] = 1
    assert generalised_mean(lone).item() == pytest.approx(0.0625)


@pytest.mark.parametrize("exponent", [1.0, 4.0, 8.0, 50.0])
@pytest.mark.parametrize("prob", [0.0, 1e-5, 0.01, 0.3, 1.0])
def test_generalised_mean_of_equal_pixels_is_their_probability_whatever_the_exponent(prob, exponent):
    probs = torch.full((1, 8, 8), prob, requires_grad=True)
    mean = generalised_mean(probs, exponent)
    mean.sum().backward()
    assert mean.item() == pytest.approx(max(prob, 1e-6), rel=1e-5)
    assert probs.grad.isfinite().all()
    assert probs.grad.sum().item() == pytest.approx(float(prob > 0), rel=1e-4)


def test_negative_images_are_taught_by_zero_whatever_the_teacher_says():
    by_teacher = maps(3, 4, 4)
    targets = teacher_targets(by_teacher, LABELS)
    assert torch.equal(targets[0], by_teacher[0])
    assert not targets[1].any()
    assert not teacher_targets(maps(3, 2, 4, 4), LABELS)[1].any()


@pytest.mark.parametrize("mode", ["fusion", "layer", "output"])
def test_distillation_teaches_the_maps_that_the_mode_says(mode):
    sides, fused, teacher_sides, by_teacher = (
        maps(3, 2, 4, 4),
        maps(3, 4, 4, seed=1),
        maps(3, 2, 4, 4, seed=2),
        maps(3, 4, 4, seed=3),
    )
    expected = torch.zeros(3)
    for image, label in enumerate(LABELS.tolist()):
        pairs = [(fused[image], by_teacher[image])]
        if mode == "fusion":
            pairs += [(own, by_teacher[image]) for own in sides[image]]
        elif mode == "layer":
            pairs += list(zip(sides[image], teacher_sides[image], strict=True))
        expected[image] = sum(polar_by_hand(own, target * label, label) for own, target in pairs)
    loss = distillation_loss(sides, fused, teacher_sides, by_teacher, LABELS, mode)
    torch.testing.assert_close(loss, expected)


def test_cross_entropy_of_probabilities_taken_for_logits():
    """As released: between 0.313 and 1.313, whatever the map."""
    right = weighted_cross_entropy(torch.ones(1, 2, 2), torch.ones(1, 2, 2), space="prob")
    wrong = weighted_cross_entropy(torch.zeros(1, 2, 2), torch.ones(1, 2, 2), space="prob")
    assert right.item() == pytest.approx(0.31326, abs=1e-5)
    assert wrong.item() == pytest.approx(1.31326, abs=1e-5)


def test_released_reading_is_an_area_penalty():
    """Truncation leaves no positive pixel below a probability of 1: the mean of softplus(2p - 1), also in positives."""
    probs, by_teacher = maps(2, 5, 5), maps(2, 5, 5, seed=1)
    loss = weighted_cross_entropy(probs, by_teacher, target="trunc", space="prob")
    torch.testing.assert_close(loss, torch.nn.functional.softplus(2 * probs - 1).flatten(1).mean(1))


@pytest.mark.parametrize("target", ["threshold", "soft", "trunc"])
@pytest.mark.parametrize("space", ["logit", "prob"])
@pytest.mark.parametrize("easy_examples", [True, False])
def test_cross_entropy_equals_a_loop_over_pixels(target, space, easy_examples):
    probs, by_teacher = maps(2, 3, 4), maps(2, 3, 4, seed=1)
    by_teacher[0, 0, 0] = 1.0
    expected = []
    for p_image, t_image in zip(probs, by_teacher, strict=True):
        losses, masks = [], []
        for p, t in zip(p_image.flatten().tolist(), t_image.flatten().tolist(), strict=True):
            mask = {"threshold": float(t >= 0.5), "soft": t, "trunc": float(int(t))}[target]
            if space == "prob":
                p = math.exp(p) / (math.exp(p) + math.exp(1 - p))
            losses.append(-mask * math.log(p) - (1 - mask) * math.log(1 - p))
            masks.append(mask >= 0.5)
        weights = [math.exp(-loss) for loss in losses]
        mean = sum(weights) / len(weights)
        weigh = easy_examples and 0 < sum(masks) < len(masks)
        expected.append(
            sum(loss * (w / mean if weigh else 1) for loss, w in zip(losses, weights, strict=True)) / len(losses)
        )
    loss = weighted_cross_entropy(probs, by_teacher, target, space, easy_examples)
    torch.testing.assert_close(loss, torch.tensor(expected))


def test_easy_weights_have_mean_one_and_are_one_for_a_single_class():
    losses = maps(3, 50)
    masks = (maps(3, 50, seed=1) > 0.5).float()
    masks[1], masks[2] = 0, 1
    weights = easy_weights(losses, masks)
    torch.testing.assert_close(weights.mean(1), torch.ones(3))
    assert (weights[0].argmax(), weights[0].argmin()) == (losses[0].argmin(), losses[0].argmax())
    assert (weights[1:] == 1).all()


def test_easy_weights_carry_no_gradient():
    probs = maps(1, 4, 4).requires_grad_()
    by_teacher = maps(1, 4, 4, seed=1)
    (weighted,) = torch.autograd.grad(weighted_cross_entropy(probs, by_teacher, space="prob"), probs)
    masks = (by_teacher >= 0.5).float()
    each = torch.nn.functional.softplus((1 - 2 * masks) * (2 * probs - 1)).flatten(1)
    weights = easy_weights(each.detach(), masks.flatten(1))
    (expected,) = torch.autograd.grad((each * weights).mean(), probs)
    torch.testing.assert_close(weighted, expected)


def test_half_precision_maps_are_scored_in_float32():
    """65,536 pixels add up beyond what half precision counts, and p^4 falls below it."""
    probs = torch.full((1, 256, 256), 0.02).half()
    labels = torch.tensor([1])
    full = probs.float()
    for loss, reference in (
        (polar_dice(probs, torch.ones_like(probs), labels), polar_dice(full, torch.ones_like(full), labels)),
        (generalised_mean(probs), generalised_mean(full)),
        (weighted_cross_entropy(probs, probs), weighted_cross_entropy(full, full)),
    ):
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, reference)


def test_probabilities_of_0_and_1_cost_no_more_than_those_kept_away_from_them():
    wrong = losses.cross_entropy_of(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0]))
    assert wrong.tolist() == pytest.approx([-math.log(losses.LEAST_PROB)] * 2, rel=1e-2)
