"""Links say where to look; what they say wrong is left out."""

from urllib.parse import parse_qs

import numpy as np
import pytest

from kd_mil.viewer.frame import Frame, deep_zoom_level
from kd_mil.viewer.views import View, view_of


def arguments(query):
    return {name: [value.encode() for value in values] for name, values in parse_qs(query).items()}


@pytest.mark.parametrize("view", [View(), View("a b&x=<1>"), View("ä/1", 10, -20, 300)])
def test_a_view_survives_its_link(view):
    assert view_of(arguments(view.query())) == view


@pytest.mark.parametrize("places", ["1 2", "nan 2 3", "1 2 0", "a 2 3", "1e999 1 1"])
def test_half_a_place_is_none(places):
    query = "&".join(f"{name}={value}" for name, value in zip(("x", "y", "width"), places.split(), strict=False))
    assert view_of(arguments(query)) == View()


def test_places_of_the_plot_and_of_the_slide():
    frame = Frame(0.5)
    points = np.array([[0, 0], [100, 40]])
    assert frame.to_plot(points).tolist() == [[0, 0], [50, -20]]
    assert frame.to_slide(*frame.to_plot(points).T).tolist() == points.tolist()


def test_the_whole_area_fits_and_a_view_is_kept():
    frame = Frame(0.5)
    x0, x1, y0, y1 = frame.ranges(View(), (100, 0, 1000, 4000), 2.0)
    assert (x0 + x1) / 2 == 300
    assert (y0 + y1) / 2 == -1000
    assert (x1 - x0) / (y1 - y0) == pytest.approx(2)
    assert y1 - y0 >= 2000
    assert frame.ranges(View("a", 200, 100, 80), (0, 0, 9, 9), 2.0) == (80, 120, -60, -40)


def test_levels_of_the_pyramid():
    """Of a slide of 5,120 pixels a side: 14 levels, the last one at zoom 5, where 32 tiles of 256 make 8,192."""
    assert deep_zoom_level(14, 5, 5) == 13
    assert deep_zoom_level(14, 0, 5) == 8
