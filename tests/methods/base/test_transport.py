"""Labels by transport against Sinkhorn-Knopp, and the share of positives against known mixtures."""

import math

import numpy as np
import pytest
import torch

from kd_mil.methods.base.transport import keep_winners, positive_share, standardised, transport_labels


def sinkhorn(scores, mass, sharpness, rounds=4000):
    """Transport of N instances to two classes, by alternating scaling of rows and columns."""
    z = sharpness * np.asarray(scores, dtype=np.float64)
    kernel = np.stack([1 / (1 + np.exp(z)), 1 / (1 + np.exp(-z))], 1)
    rows, columns = np.full(len(z), 1 / len(z)), np.array([1 - mass, mass])
    v = np.ones(2)
    for _ in range(rounds):
        u = rows / (kernel @ v)
        v = columns / (kernel.T @ u)
    plan = u[:, None] * kernel * v
    return plan[:, 1] / plan.sum(1)


@pytest.mark.parametrize("mass", [0.02, 0.3, 0.9])
@pytest.mark.parametrize("sharpness", [1.0, 5.0])
def test_the_closed_form_is_what_sinkhorn_converges_to(mass, sharpness):
    scores = torch.randn(200, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = transport_labels(scores, mass, sharpness)
    assert float(labels.mean()) == pytest.approx(mass, abs=1e-12)
    np.testing.assert_allclose(labels.numpy(), sinkhorn(scores, mass, sharpness), atol=1e-9)


def test_two_symmetric_scores_by_hand():
    """With scores -2 and 2 and half of the mass, b is 0: the labels are the sigmoids."""
    labels = transport_labels(torch.tensor([-2.0, 2.0]), 0.5)
    assert labels.tolist() == pytest.approx([1 / (1 + math.exp(2)), 1 / (1 + math.exp(-2))])


def test_extreme_masses_and_equal_scores():
    scores = torch.tensor([0.0, 1.0, 3.0])
    assert transport_labels(scores, 1 - 1e-12).min() > 1 - 1e-6
    assert transport_labels(scores, 1e-12).max() < 1e-6
    assert transport_labels(torch.full((4,), 7.0), 0.25).tolist() == pytest.approx([0.25] * 4)


def test_labels_keep_the_order_and_ignore_shifts():
    scores = torch.randn(50, generator=torch.Generator().manual_seed(1))
    labels = transport_labels(scores, 0.2, 3.0)
    assert labels.argsort().tolist() == scores.argsort().tolist()
    torch.testing.assert_close(transport_labels(scores + 100, 0.2, 3.0), labels, atol=1e-5, rtol=1e-4)


def test_each_bag_keeps_its_winner():
    owners = torch.tensor([3, 3, 7, 7, 7])
    labels = keep_winners(torch.full((5,), 0.1), torch.tensor([1.0, 2.0, -4.0, -3.0, -3.0]), owners)
    assert labels.tolist() == pytest.approx([0.1, 1.0, 0.1, 1.0, 1.0])  # ties win together


def test_standardised_by_hand():
    reference = torch.tensor([1.0, 3.0])
    assert standardised(torch.tensor([2.0, 4.0]), reference).tolist() == pytest.approx([0.0, math.sqrt(2)])
    assert standardised(torch.tensor([5.0]), torch.tensor([5.0, 5.0])).tolist() == [0.0]


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6])
def test_the_share_of_well_separated_positives_is_found(share):
    generator = torch.Generator().manual_seed(2)
    positive = int(4000 * share)
    unlabelled = torch.randn(4000, generator=generator) + 8 * (torch.arange(4000) < positive)
    assert positive_share(unlabelled, torch.randn(4000, generator=generator)) == pytest.approx(share, abs=0.03)


def test_the_share_by_hand():
    """Negatives lie at 0, unlabelled ones at 0 (three) and 1 (one): a quarter is positive."""
    unlabelled, negative = torch.tensor([0.0, 0, 0, 1]), torch.tensor([0.0, 0, 0, 0])
    assert positive_share(unlabelled, negative) == pytest.approx(0.25)
