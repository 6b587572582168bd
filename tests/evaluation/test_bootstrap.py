"""Intervals against resampling row by row, and their coverage of what is known."""

import math

import numpy as np
import pytest
import torch

from kd_mil.core.errors import UserError
from kd_mil.evaluation.bootstrap import bootstrap, bootstrap_difference
from kd_mil.evaluation.classification import confusion_matrix, confusion_scores

GENERATOR = torch.Generator().manual_seed(0)
LABELS = torch.tensor([0] * 80 + [1] * 40 + [2] * 10)
RIGHT = torch.rand(130, generator=GENERATOR) < 0.7
DECIDED = torch.where(RIGHT, LABELS, (LABELS + 1) % 3)


def by_rows(weights, resamples=2000):
    """The definition: draw rows with replacement, score, take percentiles."""
    generator = np.random.default_rng(1)
    values = []
    for _ in range(resamples):
        rows = torch.from_numpy(generator.choice(130, 130, p=weights / weights.sum()))
        values.append(confusion_scores(confusion_matrix(LABELS[rows], DECIDED[rows], 3)))
    return {name: torch.stack([one[name] for one in values]) for name in values[0]}


@pytest.mark.parametrize("balanced", [False, True])
def test_cells_drawn_at_once_are_rows_drawn_one_by_one(balanced):
    weights = 1 / np.bincount(LABELS)[LABELS] if balanced else np.ones(130)
    found = bootstrap(LABELS, DECIDED, 3, balanced=balanced)
    for name, values in by_rows(weights).items():
        values = values[values.isfinite()].numpy()
        assert found[name].mean == pytest.approx(values.mean(), abs=0.005), name
        assert found[name].low == pytest.approx(np.percentile(values, 2.5), abs=0.02), name
        assert found[name].high == pytest.approx(np.percentile(values, 97.5), abs=0.02), name


def test_accuracy_has_the_spread_of_a_binomial():
    found = bootstrap(LABELS, DECIDED, 3)["accuracy"]
    share = (LABELS == DECIDED).double().mean().item()
    assert found.mean == pytest.approx(share, abs=0.003)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * math.sqrt(share * (1 - share) / 130), rel=0.08)


def test_size_and_seed():
    wide, narrow = (bootstrap(LABELS, DECIDED, 3, size=size)["accuracy"] for size in (30, 3000))
    assert wide.high - wide.low > 5 * (narrow.high - narrow.low)
    assert bootstrap(LABELS, DECIDED, 3, seed=4) == bootstrap(LABELS, DECIDED, 3, seed=4)
    assert bootstrap(LABELS, DECIDED, 3, seed=4) != bootstrap(LABELS, DECIDED, 3, seed=5)


def test_resamples_without_a_class_are_left_out_and_counted():
    labels = torch.tensor([0] * 20 + [1])
    found = bootstrap(labels, labels, 2)
    assert found["recall"].defined == pytest.approx(1 - (20 / 21) ** 21, abs=0.02)
    assert found["recall"].mean == 1
    assert found["accuracy"].defined == 1
    alone = bootstrap(torch.zeros(5, dtype=torch.long), torch.zeros(5, dtype=torch.long), 2)
    assert math.isnan(alone["recall"].mean)
    assert alone["recall"].defined == 0


def test_difference_is_paired():
    """Two classifiers that err on the same images differ by nothing, however wide their own intervals are."""
    assert bootstrap_difference(LABELS, DECIDED, DECIDED, 3)["accuracy"][:3] == (0, 0, 0)
    better = torch.where(torch.arange(130) < 60, LABELS, DECIDED)
    found = bootstrap_difference(LABELS, better, DECIDED, 3)["accuracy"]
    gain = ((better == LABELS).double().mean() - (DECIDED == LABELS).double().mean()).item()
    assert found.mean == pytest.approx(gain, abs=0.003)
    assert 0 < found.low < found.mean < found.high
    own = bootstrap(LABELS, better, 3)["accuracy"]
    assert found.high - found.low < own.high - own.low


def test_cases_are_drawn_whole():
    """Against a plain loop over cases of five images each, and the same for a difference."""
    cases = [f"case {index // 5}" for index in range(130)]
    members = [torch.arange(130)[5 * index : 5 * index + 5] for index in range(26)]
    other = torch.where(torch.arange(130) % 3 == 0, LABELS, DECIDED)
    generator, values, gains = np.random.default_rng(1), [], []
    for _ in range(2000):
        rows = torch.cat([members[index] for index in generator.integers(0, 26, 26)])
        scores = [confusion_scores(confusion_matrix(LABELS[rows], decided[rows], 3)) for decided in (DECIDED, other)]
        values.append(scores[0])
        gains.append(scores[1]["accuracy"] - scores[0]["accuracy"])
    for name, found in bootstrap(LABELS, DECIDED, 3, cases=cases).items():
        known = [one[name] for one in values if one[name].isfinite()]
        assert (found.low, found.high) == pytest.approx(tuple(np.percentile(known, [2.5, 97.5])), abs=0.02), name
        assert found.defined == pytest.approx(len(known) / 2000, abs=0.03), name
    gain = bootstrap_difference(LABELS, other, DECIDED, 3, cases=cases)["accuracy"]
    assert (gain.low, gain.high) == pytest.approx(tuple(np.percentile(gains, [2.5, 97.5])), abs=0.01)


def test_images_that_are_cases_of_their_own_are_drawn_as_without_cases():
    assert bootstrap(LABELS, DECIDED, 3, 50, cases=[str(i) for i in range(130)]) == bootstrap(LABELS, DECIDED, 3, 50)


def test_many_resamples_are_drawn_in_parts_that_are_the_whole(monkeypatch):
    cases = [f"case {index // 5}" for index in range(130)]
    whole = bootstrap(LABELS, DECIDED, 3, 50, cases=cases)
    monkeypatch.setattr("kd_mil.evaluation.bootstrap.CELLS_AT_ONCE", 200)
    assert bootstrap(LABELS, DECIDED, 3, 50, cases=cases) == whole


def test_f1_without_a_positive_is_undefined_not_zero():
    """A class of one image, which a third of the resamples lack, and which is decided in all of them."""
    labels, decided = torch.tensor([0] * 20 + [1]), torch.tensor([0] * 15 + [1] * 6)
    found = bootstrap(labels, decided, 2)["f1"]
    assert found.defined == pytest.approx(1 - (20 / 21) ** 21, abs=0.02)
    assert found.low > 0.3


def test_nothing_to_draw():
    with pytest.raises(UserError, match="at least 1"):
        bootstrap(LABELS, DECIDED, 3, resamples=0)
