"""Hard positive mining: by hand, and against a plain loop over bags."""

import pytest
import torch

from kd_mil.core.errors import UserError
from kd_mil.methods.weno.mining import HardPositiveMining, keep_below_threshold, keep_below_top_fraction

PROBS = torch.tensor([0.2, 0.8, 0.5, 0.9, 0.95, 0.7])
SIZES = torch.tensor([3, 1, 2])


def test_threshold_by_hand():
    """Bag 0 positive loses 0.8; bag 1 negative loses nothing; bag 2 positive would lose all and keeps the hardest."""
    keep = keep_below_threshold(PROBS, SIZES, torch.tensor([1, 0, 1]), threshold=0.5)
    assert keep.tolist() == [True, False, True, True, False, True]


def test_threshold_fallback_of_the_released_code():
    keep = keep_below_threshold(PROBS, SIZES, torch.tensor([1, 0, 1]), threshold=0.5, fallback="easiest")
    assert keep.tolist() == [True, False, True, True, True, False]


def test_top_fraction_by_hand():
    """Of three instances 0.34 drops one, of one none, of two none."""
    keep = keep_below_top_fraction(PROBS, SIZES, torch.tensor([1, 1, 1]), fraction=0.34)
    assert keep.tolist() == [True, False, True, True, True, True]


@pytest.mark.parametrize("mode", ["threshold", "top_fraction"])
@pytest.mark.parametrize("level", [0.0, 0.3, 0.9])
def test_packed_mining_is_mining_bag_by_bag_and_never_empties_one(mode, level):
    generator = torch.Generator().manual_seed(3)
    sizes = torch.tensor([1, 7, 2, 30, 5])
    labels = torch.tensor([1, 1, 0, 1, 0])
    probs = torch.rand(45, generator=generator)
    hpm = HardPositiveMining(mode=mode, threshold=level, fraction=level)
    packed = hpm.keep(probs, sizes, labels).split(sizes.tolist())
    for keep, prob, label in zip(packed, probs.split(sizes.tolist()), labels, strict=True):
        alone = hpm.keep(prob, torch.tensor([len(prob)]), label[None])
        assert torch.equal(keep, alone)
        assert keep.any()
        if label == 0:
            assert keep.all()
        elif mode == "top_fraction":
            assert (~keep).sum() == int(level * len(prob))
            assert keep.all() or prob[keep].max() <= prob[~keep].min()


def test_mining_waits_for_its_epoch():
    assert not HardPositiveMining(mode="off").active(100)
    hpm = HardPositiveMining(mode="threshold", start_epoch=3)
    assert [hpm.active(epoch) for epoch in (0, 2, 3)] == [False, False, True]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threshold": 1.5}, "hpm.threshold=1.5"),
        ({"threshold": -0.1}, "hpm.threshold"),
        ({"fraction": 1.0}, "hpm.fraction"),
        ({"start_epoch": -1}, "hpm.start_epoch"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        HardPositiveMining(**settings)


def test_a_bag_is_not_emptied_by_nan_or_by_rounding():
    probs = torch.tensor([float("nan"), float("nan"), 0.9, 0.1])
    keep = keep_below_threshold(probs, torch.tensor([2, 2]), torch.tensor([1, 1]), 0.5)
    assert keep.tolist() == [True, True, False, True]
    keep = keep_below_top_fraction(torch.rand(10), torch.tensor([10]), torch.tensor([1]), 0.99999999)
    assert keep.sum() == 1
