"""Losses of resolution distillation: constants, floors, temperature, and the authors' factors."""

import math

import pytest
import torch
import torch.nn.functional as F

from kd_mil.methods.resolution.losses import pixel_floor, pixel_loss, resize_map, soft_loss

TEACHER = torch.rand(2, 5, 12, 9, generator=torch.Generator().manual_seed(0))
STUDENT = torch.rand(2, 5, 3, 2, generator=torch.Generator().manual_seed(1))


def test_soft_loss_by_hand():
    teacher, student = torch.tensor([[math.log(9.0), 0.0]]), torch.zeros(1, 2)
    assert soft_loss(student, teacher).item() == pytest.approx(0.36806, abs=1e-5)
    assert soft_loss(teacher, teacher, 3.0).item() == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_soft_loss_against_probabilities(temperature):
    student, teacher = torch.randn(4, 3), torch.randn(4, 3)
    p, q = (teacher / temperature).softmax(1), (student / temperature).softmax(1)
    expected = temperature**2 * (p * (p / q).log()).sum(1).mean()
    assert soft_loss(student, teacher, temperature).item() == pytest.approx(expected.item(), rel=1e-5)


def test_temperature_does_not_change_the_gradient_of_small_logits():
    """Hinton's T^2: to first order the gradient is (student - teacher) / classes, whatever T."""
    gradients = []
    for temperature in (1.0, 4.0):
        student = torch.full((1, 4), 0.0).copy_(torch.tensor([[0.01, -0.02, 0.0, 0.01]])).requires_grad_()
        soft_loss(student, torch.tensor([[-0.01, 0.01, 0.02, -0.02]]), temperature).backward()
        gradients.append(student.grad)
    assert torch.allclose(*gradients, rtol=0.02)


@pytest.mark.parametrize("resize", ["maxpool", "bicubic"])
def test_a_constant_map_stays_constant(resize):
    resized = resize_map(torch.full((1, 4, 13, 10), 0.7), (3, 2), resize)
    assert torch.allclose(resized, torch.full((1, 4, 3, 2), 0.7))
    assert pixel_loss(torch.full((1, 4, 3, 2), 0.7), [resized, resized]).item() == pytest.approx(0, abs=1e-12)


def test_maxpool_takes_the_maximum_of_each_cell():
    assert torch.equal(resize_map(TEACHER, (6, 3), "maxpool"), F.max_pool2d(TEACHER, (2, 3)))


def test_bicubic_undershoots_unless_clamped():
    spikes = torch.randn(1, 8, 16, 16, generator=torch.Generator().manual_seed(0)).sub(1).relu()
    assert resize_map(spikes, (7, 7), "bicubic").min() < 0
    assert resize_map(spikes, (7, 7), "bicubic", clamp_min=0).min() == 0


def test_pixel_loss_is_the_mean_over_both_resizings():
    targets = [resize_map(TEACHER, (3, 2), one) for one in ("maxpool", "bicubic")]
    each = [F.mse_loss(STUDENT, target) for target in targets]
    assert pixel_loss(STUDENT, targets).item() == pytest.approx((each[0] + each[1]).item() / 2)
    assert pixel_loss(STUDENT, targets[:1]).item() == pytest.approx(each[0].item())
    assert pixel_loss(STUDENT, targets, "sum").item() == pytest.approx(
        (each[0] + each[1]).item() / 2 * 5 * 3 * 2, rel=1e-5
    )


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_floor_is_the_least_value_any_student_reaches(reduction):
    targets = [resize_map(TEACHER, (3, 2), one) for one in ("maxpool", "bicubic")]
    floor = pixel_floor(targets, reduction)
    if reduction == "mean":
        assert floor.item() == pytest.approx(((targets[0] - targets[1]) ** 2).mean().item() / 4, rel=1e-5)
    student = torch.nn.Parameter(STUDENT.clone())
    optimizer = torch.optim.LBFGS([student], max_iter=50)

    def closure():
        optimizer.zero_grad()
        loss = pixel_loss(student, targets, reduction)
        loss.backward()
        return loss

    optimizer.step(closure)
    assert pixel_loss(student, targets, reduction).item() == pytest.approx(floor.item(), rel=1e-4)
    assert pixel_floor(targets[:1], reduction).item() == 0


def test_half_precision_maps_are_compared_in_float32():
    big = torch.full((1, 2, 4, 4), 300.0, dtype=torch.float16)
    assert pixel_loss(big[..., :2, :2], [resize_map(-big, (2, 2), "maxpool")]).item() == 360_000
