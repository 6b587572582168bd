"""How cost grows: exponents, and points that axes share."""

import pytest

from benchmarks import growth


def test_exponents_of_powers():
    values = (20, 63, 200)
    assert growth.exponent(values, [3 * value**1.5 for value in values]) == 1.5
    assert growth.exponent((1, 2), (10, 5)) == -1


def test_an_exponent_is_that_of_the_line_nearest_to_all_points():
    """Slope of (0, 0), (1, 1), (2, 5): (-1 * -2 + 1 * 3) / 2."""
    assert growth.exponent((1, 10, 100), (1, 10, 100_000)) == 2.5


def test_every_axis_has_all_its_points_and_the_shared_one_is_measured_once(monkeypatch):
    asked = []

    def by_phase(name, point):
        asked.append(tuple(point.values()))
        cost = point["bags"] * point["instances"] ** 2
        return {"teacher": {"seconds": cost, "cpu_seconds": cost, "added_mib": 7.0}}

    monkeypatch.setattr(growth, "by_phase", by_phase)
    base = {"bags": 2, "instances": 3, "width": 4, "ranks": 1}
    rows = growth.measure("WENO", base, {"bags": (2, 8), "instances": (3, 6)})
    assert asked == [(2, 3, 4, 1), (8, 3, 4, 1), (2, 6, 4, 1)]
    assert [(row["axis"], row["value"], row["seconds"]) for row in rows] == [
        *(("bags", 2, 18), ("bags", 8, 72)),
        *(("instances", 3, 18), ("instances", 6, 72)),
    ]
    assert [row.get("cpu_exponent") for row in rows] == [None, 1.0, None, 2.0]
    assert rows[1]["memory_exponent"] == 0
    bags, instances = growth.goals(rows)
    assert bags["reached"]
    assert not instances["reached"]


@pytest.mark.parametrize("axis", growth.AXES)
def test_axes_begin_at_the_base(axis):
    assert growth.AXES[axis][0] == growth.BASE[axis]
