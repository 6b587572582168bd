"""What the methods on bags share."""

import pytest

from kd_mil.methods.base import bag_method
from kd_mil.methods.weno.weno import WENO
from kd_mil.models.preprocess import Preprocess
from tests.support.methods import make_d2l, make_mhim, make_mil, make_rnn_mil, make_weno
from tests.support.tiny import WIDTH, TinyData, fit, no_mining, tiny_abmil, tiny_head, tiny_parts, tiny_splits


def test_few_large_instances_are_enough_for_pixel_statistics(monkeypatch):
    """Thousands of large tiles would not fit in memory; a bound on numbers, not tiles, holds at any size."""
    seen = []
    monkeypatch.setattr(Preprocess, "fit", lambda _, instances: seen.append(tuple(instances.shape)))
    for values, expected in ((5 * WIDTH, 5), (1, 1)):
        monkeypatch.setattr(bag_method, "STATISTICS_VALUES", values)
        parts = tiny_parts() | {"preprocess": Preprocess(standardise=True)}
        method = WENO(**parts, aggregator=tiny_abmil(), student_head=tiny_head(), hpm=no_mining())
        fit(method, TinyData(tiny_splits()))
        assert seen.pop() == (expected, WIDTH)


class Witness(Preprocess):
    """Notes for how many instances it was told the bags they are of."""

    def forward(self, instances, sizes=None):
        if self.training:
            self.__dict__.setdefault("seen", []).append((len(instances), None if sizes is None else int(sizes.sum())))
        return super().forward(instances, sizes)


@pytest.mark.parametrize("make", [make_d2l, make_mhim, make_mil, make_rnn_mil, make_weno])
def test_preprocessing_knows_the_bags_of_what_it_changes(make):
    """What changes a whole bag, such as its staining, needs them; WENO's instance phase has none."""
    witness = Witness()
    fit(make(preprocess=witness), TinyData(tiny_splits()), epochs=6)
    told = [(count, of_bags) for count, of_bags in witness.seen if make is not make_weno or of_bags is not None]
    assert told
    assert all(count == of_bags for count, of_bags in told)
