"""What the methods on bags share."""

from kd_mil.methods import bag_distiller
from kd_mil.methods.weno import WENO
from kd_mil.models.preprocess import Preprocess
from tests.tiny import WIDTH, TinyData, fit, no_mining, tiny_abmil, tiny_head, tiny_parts, tiny_splits


def test_few_large_instances_are_enough_for_pixel_statistics(monkeypatch):
    """Thousands of large tiles would not fit in memory; a bound on numbers, not tiles, holds at any size."""
    seen = []
    monkeypatch.setattr(Preprocess, "fit", lambda _, instances: seen.append(tuple(instances.shape)))
    for values, expected in ((5 * WIDTH, 5), (1, 1)):
        monkeypatch.setattr(bag_distiller, "STATISTICS_VALUES", values)
        parts = tiny_parts() | {"preprocess": Preprocess(standardise=True)}
        method = WENO(**parts, aggregator=tiny_abmil(), student_head=tiny_head(), hpm=no_mining())
        fit(method, TinyData(tiny_splits()))
        assert seen.pop() == (expected, WIDTH)
