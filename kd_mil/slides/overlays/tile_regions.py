"""Connected groups of tiles: their outlines, and what their tiles measure, in time that grows with the tiles alone."""

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import NamedTuple

import numpy as np
import shapely
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Rings = list[list[list[float]]]


class Regions(NamedTuple):
    """R connected groups of N tiles, the largest first; of equal ones that with the earlier first tile."""

    outlines: np.ndarray
    """(R,) polygons."""
    of_tile: np.ndarray
    """(N,) int, the region of each tile."""


def merge_tiles(corners: np.ndarray, sizes: np.ndarray | int) -> Regions:
    """Regions of tiles; tiles that share a corner alone are not connected.

    Args:
        corners: (N, 2) (x, y) of the top-left corners, N >= 1.
        sizes: (N, 2) (width, height) of the tiles in the same pixels, or the edge of all.
    """
    starts = np.asarray(corners)
    ends = starts + sizes
    boxes = shapely.box(*starts.T, *ends.T)
    first, second = shapely.STRtree(boxes).query(boxes)
    shared = np.minimum(ends[first], ends[second]) - np.maximum(starts[first], starts[second])
    adjoins = (shared >= 0).all(1) & (shared > 0).any(1)
    edges = (np.ones(int(adjoins.sum()), bool), (first[adjoins], second[adjoins]))
    count, group = connected_components(coo_array(edges, (len(boxes), len(boxes))), directed=False)
    whole = (shared == (ends - starts)[first]) & (shared == (ends - starts)[second])
    edge_to_edge = ((shared == 0) & whole[:, ::-1]).any(1)[adjoins & (first != second)].all()
    outlines = _outlines(boxes, group, count, shapely.coverage_union_all if edge_to_edge else shapely.union_all)
    order = np.lexsort((np.unique(group, return_index=True)[1], -shapely.area(outlines)))
    place = np.empty(count, np.int64)
    place[order] = np.arange(count)
    return Regions(outlines[order], place[group])


def _outlines(boxes: np.ndarray, group: np.ndarray, count: int, union: Callable[..., np.ndarray]) -> np.ndarray:
    """The union (count,) of the boxes (N,) of each group; groups of as many boxes are joined together."""
    order, lengths = np.argsort(group, kind="stable"), np.bincount(group, minlength=count)
    starts = np.cumsum(lengths) - lengths
    outlines = np.empty(count, object)
    for length in np.unique(lengths).tolist():
        alike = np.flatnonzero(lengths == length)
        members = boxes[order[starts[alike][:, None] + np.arange(length)]]
        if length == 1:
            outlines[alike] = members[:, 0]
        else:  # no tolerance changes no topology, which would take minutes to preserve
            outlines[alike] = shapely.simplify(union(members, axis=1), 0, preserve_topology=False)
    return outlines


def rings_of(outlines: np.ndarray) -> Iterator[Rings]:
    """Exterior and holes of each polygon (R,) in turn, closed rings of [x, y]; integers, where all corners are."""
    rings, owner = shapely.get_rings(outlines, return_index=True)
    points, ring = shapely.get_coordinates(rings, return_index=True)
    places = points.astype(np.int64) if (points == np.rint(points)).all() else points
    parts = iter(np.split(places, np.cumsum(np.bincount(ring, minlength=len(rings)))[:-1]))
    for count in np.bincount(owner, minlength=len(outlines)).tolist():
        yield [part.tolist() for part in islice(parts, count)]


def summaries(measurements: Mapping[str, np.ndarray], of_tile: np.ndarray, count: int) -> Iterator[dict[str, float]]:
    """Tiles of each region, and mean and maximum of every measurement over them, of what is finite; NaN without any.

    They come in turn, as the rings do: made at once, a million small objects keep Python's garbage collector busy.

    Args:
        measurements: values (N,) by name.
        of_tile: (N,) int, the region of each tile, from 0.
        count: R, number of regions, none without tiles.
    """
    columns: dict[str, np.ndarray] = {"tiles": np.bincount(of_tile, minlength=count)}
    for name, column in measurements.items():
        values = np.asarray(column, float)
        known = np.isfinite(values)
        largest = np.full(count, -np.inf)
        np.maximum.at(largest, of_tile[known], values[known])
        sums, counts = (np.bincount(of_tile[known], weights, count) for weights in (values[known], None))
        with np.errstate(invalid="ignore"):
            columns |= {f"{name} mean": sums / counts, f"{name} max": np.where(counts > 0, largest, np.nan)}
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    for row in rows:
        yield dict(zip(columns, row, strict=True))
