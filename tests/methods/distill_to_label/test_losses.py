"""Hand values, and the Bernoulli formulas of the paper in plain float64 loops."""

import math

import pytest
import torch

from kd_mil.methods.distill_to_label.losses import consistency, divergence, entropy


def logits_of(*probs):
    """Two-class logits of positive probabilities, in float64."""
    return torch.tensor([[math.log(1 - p), math.log(p)] for p in probs], dtype=torch.float64)


def test_hand_values():
    assert divergence(logits_of(0.9), logits_of(0.5), 1.0).item() == pytest.approx(0.36806, abs=1e-5)
    assert divergence(logits_of(0.3), logits_of(0.3), 2.0).item() == pytest.approx(0.0, abs=1e-12)
    assert entropy(logits_of(0.5)).item() == pytest.approx(0.69315, abs=1e-5)
    assert consistency(logits_of(0.5), logits_of(0.5)).item() == pytest.approx(math.log(2))
    # -0.9 ln 0.6 - 0.1 ln 0.4
    assert consistency(logits_of(0.9), logits_of(0.6)).item() == pytest.approx(0.55137, abs=1e-5)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 4.0])
def test_softmax_over_two_logits_is_the_papers_bernoulli(temperature):
    generator = torch.Generator().manual_seed(0)
    teacher, student = torch.randn(2, 30, 2, generator=generator, dtype=torch.float64).mul(3)
    kl, cross, uncertainty = divergence(teacher, student, temperature), consistency(teacher, student), entropy(student)
    for row in range(30):
        p, q = (1 / (1 + math.exp(-float(x[row, 1] - x[row, 0]) / temperature)) for x in (teacher, student))
        expected = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
        assert kl[row].item() == pytest.approx(expected, rel=1e-8, abs=1e-10)
        p, q = (1 / (1 + math.exp(-float(x[row, 1] - x[row, 0]))) for x in (teacher, student))
        assert cross[row].item() == pytest.approx(-p * math.log(q) - (1 - p) * math.log(1 - q), abs=1e-10)
        assert uncertainty[row].item() == pytest.approx(-q * math.log(q) - (1 - q) * math.log(1 - q), abs=1e-10)


def test_certainty_has_no_infinite_loss_or_gradient():
    logits = torch.tensor([[0.0, 200.0], [200.0, 0.0]], requires_grad=True)
    others = torch.tensor([[200.0, 0.0], [200.0, 0.0]])
    total = (entropy(logits) + divergence(others, logits, 1.0) + consistency(others, logits)).sum()
    total.backward()
    assert total.isfinite()
    assert logits.grad.isfinite().all()


def test_the_target_of_consistency_moves_only_if_asked():
    for detach in (True, False):
        clean, disturbed = logits_of(0.8, 0.4).requires_grad_(), logits_of(0.6, 0.3).requires_grad_()
        consistency(clean, disturbed, detach).sum().backward()
        assert (clean.grad is None) == detach
        assert disturbed.grad.abs().sum() > 0


def test_divergence_is_least_where_student_and_teacher_agree():
    student = logits_of(0.2, 0.7).requires_grad_()
    divergence(student.detach(), student, 3.0).sum().backward()
    assert student.grad.abs().max() < 1e-12
