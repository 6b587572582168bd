"""Regions of tiles against the union of all of them at once, and their measurements against plain means."""

import numpy as np
import pytest
import shapely

from kd_mil.slides.overlays.tile_regions import merge_tiles, rings_of, summaries


def on_a_grid(rng):
    cells = rng.permutation(400)[:220]
    return np.stack([cells % 20, cells // 20], 1) * 256, 256


def on_a_grid_but_one(rng):
    corners, edge = on_a_grid(rng)
    corners[7, 1] += 100
    return corners, edge


def on_a_grid_and_some_twice(rng):
    corners, edge = on_a_grid(rng)
    return np.concatenate([corners, corners[:9]]), edge


def cut_at_the_border(rng):
    corners, edge = on_a_grid(rng)
    return corners, np.minimum(edge, 20 * 256 - 90 - corners)


def anywhere_of_any_size(rng):
    return rng.integers(0, 400, (60, 2)), rng.integers(5, 60, (60, 2))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "draw", [on_a_grid, on_a_grid_but_one, on_a_grid_and_some_twice, cut_at_the_border, anywhere_of_any_size]
)
def test_regions_are_the_parts_of_the_union_of_all_tiles(draw, seed):
    corners, sizes = draw(np.random.default_rng(seed))
    regions = merge_tiles(corners, sizes)
    boxes = shapely.box(*corners.T, *(corners + sizes).T)
    parts = shapely.get_parts(shapely.simplify(shapely.union_all(boxes), 0))
    assert len(parts) == len(regions.outlines)
    assert {part.normalize().wkt for part in parts} == {outline.normalize().wkt for outline in regions.outlines}
    assert (np.diff(shapely.area(regions.outlines)) <= 0).all()
    assert shapely.contains(regions.outlines[regions.of_tile], shapely.centroid(boxes)).all()
    rings = list(rings_of(regions.outlines))
    assert sum(map(len, rings)) == len(parts) + sum(len(part.interiors) for part in parts)
    assert all(ring[0] == ring[-1] and isinstance(ring[0][0], int) for region in rings for ring in region)
    equals = [
        shapely.Polygon(region[0], region[1:]).equals(outline)
        for region, outline in zip(rings, regions.outlines, strict=True)
    ]
    assert all(equals)


def test_a_tumour_of_many_tiles_with_thousands_of_holes_is_one_region():
    tissue = np.random.default_rng(0).random((240, 240)) < 0.7
    corners = np.argwhere(tissue) * 256
    largest = merge_tiles(corners, 256).outlines[0]
    assert len(largest.interiors) > 4000
    assert largest.area > 0.9 * len(corners) * 256**2


def test_measurements_are_those_of_finite_values():
    values = np.array([1.0, np.nan, 3.0, np.inf, np.nan, 0.5])
    first, second, third = summaries({"p": values}, np.array([0, 0, 0, 1, 1, 2]), 3)
    assert first == {"tiles": 3, "p mean": 2.0, "p max": 3.0}
    assert second["tiles"] == 2
    assert np.isnan([second["p mean"], second["p max"]]).all()
    assert third == {"tiles": 1, "p mean": 0.5, "p max": 0.5}
