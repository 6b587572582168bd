"""Polygons say what the mask says, pixel by pixel."""

import json

import numpy as np
import pytest
import shapely
from scipy import ndimage

from kd_mil.slides.overlays.geojson import outline_annotations, write_geojson
from kd_mil.slides.overlays.mask_polygons import mask_edges, mask_polygons


def painted(polygons, shape):
    """The pixels whose centre lies in a polygon."""
    x, y = np.meshgrid(np.arange(shape[1]) + 0.5, np.arange(shape[0]) + 0.5)
    union = shapely.union_all(polygons)
    shapely.prepare(union)
    return shapely.contains_xy(union, x, y)


@pytest.mark.parametrize("seed", range(3))
def test_painting_the_polygons_gives_the_mask_back(seed):
    noise = np.random.default_rng(seed).random((60, 80))
    mask = ndimage.gaussian_filter(noise, 2) > 0.5
    polygons = mask_polygons(mask)
    assert (painted(polygons, mask.shape) == mask).all()
    assert all(polygon.is_valid for polygon in polygons)
    assert sum(polygon.area for polygon in polygons) == mask.sum()
    areas = [polygon.area for polygon in polygons]
    assert areas == sorted(areas, reverse=True)


def test_holes_and_corners():
    mask = np.zeros((8, 10), bool)
    mask[1:5, 1:5] = True
    mask[2:4, 2:4] = False
    mask[5:7, 5:7] = True
    ring, square = mask_polygons(mask)
    assert len(ring.interiors) == 1
    assert ring.area == 12
    assert square.bounds == (5, 5, 7, 7)


def test_small_regions_go_and_small_holes_are_filled():
    mask = np.zeros((20, 20), bool)
    mask[2:12, 2:12] = True
    mask[5, 5] = False
    mask[15:17, 15] = True
    [polygon] = mask_polygons(mask, min_pixels=3)
    assert polygon.area == 100
    assert not polygon.interiors


def test_empty_and_full_masks():
    assert mask_polygons(np.zeros((5, 7), bool)) == []
    [polygon] = mask_polygons(np.ones((5, 7), bool))
    assert polygon.bounds == (0, 0, 7, 5)


def test_simplified_outlines_stay_within_the_tolerance():
    y, x = np.mgrid[:60, :60]
    mask = (x - 30) ** 2 + (y - 30) ** 2 <= 20**2
    [exact], [simple] = mask_polygons(mask), mask_polygons(mask, tolerance=1.0)
    assert len(simple.exterior.coords) < len(exact.exterior.coords) / 2
    assert shapely.hausdorff_distance(exact, simple) <= 1.5


def test_outlines_are_locked_annotations_in_geojson(tmp_path):
    polygon = shapely.Polygon([(0, 0), (8, 0), (8, 8), (0, 8)], [[(2, 2), (4, 2), (4, 4), (2, 4)]])
    write_geojson(tmp_path / "one.geojson", outline_annotations("s1", "run", [polygon], [{"area px^2": 60.0}]))
    [feature] = json.loads((tmp_path / "one.geojson").read_text())["features"]
    assert shapely.geometry.shape(feature["geometry"]).area == 60
    assert feature["properties"]["objectType"] == "annotation"
    assert feature["properties"]["isLocked"] is True
    assert feature["properties"]["measurements"] == {"area px^2": 60.0}
    [again] = outline_annotations("s1", "run", [polygon], [{"area px^2": 60.0}])
    assert again["id"] == feature["id"]


@pytest.mark.parametrize("share", [0.3, 0.7])
def test_edges_are_the_outlines_of_the_polygons(share):
    mask = np.random.default_rng(0).random((20, 30)) < share
    lines = shapely.linestrings(mask_edges(mask).reshape(-1, 2, 2))
    outlines = shapely.union_all([polygon.boundary for polygon in mask_polygons(mask)])
    assert shapely.union_all(lines).equals(outlines)
    assert sum(line.length for line in lines) == outlines.length
