"""Predictions as QuPath GeoJSON: tiles as detections with measurements, merged regions as locked annotations.

What QuPath reads is fixed by its type adapters: level-0 pixels with the origin at the top left, closed rings, a UUID as
`id`, `objectType` inside `properties`, a classification with both name and colour, measurements that are numbers,
metadata that are strings.
"""

import gzip
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple
from uuid import NAMESPACE_URL, uuid5

import numpy as np
import shapely

from kd_mil.core.atomic import atomic_path
from kd_mil.core.errors import UserError
from kd_mil.slides.overlays.tile_regions import merge_tiles, rings_of, summaries

Feature = dict[str, Any]


class PathClass(NamedTuple):
    """A QuPath classification."""

    name: str
    color: tuple[int, int, int]
    """Red, green, blue, 0 to 255."""


TUMOUR = PathClass("Tumor", (200, 0, 0))
OTHER = PathClass("Other", (150, 150, 150))


@dataclass(frozen=True)
class SlideTiles:
    """The tiles of one slide with what a run says about them; checked when made.

    Raises:
        UserError: coordinates that are not (N, 2), or measurements of another length.
    """

    slide_id: str
    run: str
    """Name of the run; with the slide and the tile it decides the ids, so a second export has the same ones."""
    coords: np.ndarray
    """(N, 2) int (x, y) of the top-left corners in level-0 pixels."""
    tile_size_level0: int | np.ndarray
    """Of all tiles; or (N, 2) (width, height), of pieces that differ in size."""
    measurements: Mapping[str, np.ndarray]
    """Numbers (N,) by name: `student_prob`, `teacher_attention`, ...; a value that is not finite is left out."""
    metadata: Mapping[str, object] = field(default_factory=dict)
    """Notes written, as strings, into every object."""
    bounds_offset: tuple[int, int] = (0, 0)
    """(x, y) subtracted from all positions: `openslide.bounds-x`, `-y` for viewers that crop slides to their bounds."""

    def __post_init__(self) -> None:
        if self.coords.ndim != 2 or self.coords.shape[1] != 2:
            raise UserError(f"slide {self.slide_id!r}: tile coordinates have shape {self.coords.shape}, not (N, 2)")
        for name, values in self.measurements.items():
            if len(values) != len(self.coords):
                raise UserError(
                    f"slide {self.slide_id!r}: {len(values)} values of {name!r} for {len(self.coords)} tiles"
                )

    @property
    def sizes(self) -> np.ndarray:
        """(N, 2) (width, height)."""
        size = np.reshape(self.tile_size_level0, (-1, np.ndim(self.tile_size_level0) or 1))
        return np.broadcast_to(size, self.coords.shape)

    @property
    def corners(self) -> np.ndarray:
        """(N, 2) top-left corners in the pixels of the viewer."""
        return self.coords - np.array(self.bounds_offset)

    def is_above(self, measurement: str, threshold: float) -> np.ndarray:
        """(N,) whether a tile's measurement reaches the threshold; NaN does not."""
        if measurement not in self.measurements:
            known = ", ".join(self.measurements)
            raise UserError(
                f"slide {self.slide_id!r}: no measurement {measurement!r} to classify by; there are: {known}"
            )
        return np.asarray(self.measurements[measurement]) >= threshold


def tile_detections(
    tiles: SlideTiles, classify_by: str, threshold: float, above: PathClass = TUMOUR, below: PathClass = OTHER
) -> Iterator[Feature]:
    """One detection a tile, of the class `above` where the measurement `classify_by` reaches the threshold."""
    is_above = tiles.is_above(classify_by, threshold).tolist()
    names = list(tiles.measurements)
    rows = zip(*(np.asarray(values, float).tolist() for values in tiles.measurements.values()), strict=True)
    places = np.concatenate([tiles.corners, tiles.sizes], 1).tolist()
    for number, ((x, y, width, height), positive, row) in enumerate(zip(places, is_above, rows, strict=True)):
        ring = [[x, y], [x + width, y], [x + width, y + height], [x, y + height], [x, y]]
        yield _feature(
            tiles,
            kind="detection",
            name=f"p{number:06d}",
            rings=[ring],
            path_class=above if positive else below,
            measurements=dict(zip(names, row, strict=True)),
        )


def merged_regions(
    tiles: SlideTiles, classify_by: str, threshold: float, path_class: PathClass = TUMOUR
) -> Iterator[Feature]:
    """One annotation for each connected group of tiles that reach the threshold, largest first.

    Its measurements are the number of tiles, and the mean and the maximum of every measurement over them.
    """
    chosen = tiles.is_above(classify_by, threshold)
    if not chosen.any():
        return
    regions = merge_tiles(tiles.corners[chosen], tiles.sizes[chosen])
    measured = {name: np.asarray(values)[chosen] for name, values in tiles.measurements.items()}
    found = summaries(measured, regions.of_tile, len(regions.outlines))
    for number, (rings, measurements) in enumerate(zip(rings_of(regions.outlines), found, strict=True), start=1):
        name = f"{path_class.name} {number}"
        yield _feature(tiles, "annotation", name, rings, path_class, measurements)


def outline_annotations(
    slide_id: str,
    run: str,
    polygons: Iterable[shapely.Polygon],
    measurements: Iterable[Mapping[str, float]],
    path_class: PathClass = TUMOUR,
    metadata: Mapping[str, object] | None = None,
) -> Iterator[Feature]:
    """One annotation for each polygon, given in the pixels of the viewer, with its measurements."""
    nowhere = SlideTiles(slide_id, run, np.empty((0, 2), dtype=np.int64), 0, {}, metadata or {})
    for number, (polygon, values) in enumerate(zip(polygons, measurements, strict=True), start=1):
        rings = [shapely.get_coordinates(ring).tolist() for ring in (polygon.exterior, *polygon.interiors)]
        name = f"{path_class.name} {number}"
        yield _feature(nowhere, "annotation", name, rings, path_class, values)


def write_geojson(path: Path, features: Iterable[Feature]) -> None:
    """Write a FeatureCollection feature by feature; the file appears once it is complete.

    It is compressed if its name ends in `.gz`. The same features give the same bytes.
    """
    encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False, check_circular=False).encode
    with atomic_path(path) as temporary, temporary.open("wb") as raw:
        packed = (
            gzip.GzipFile("", "wb", compresslevel=6, fileobj=raw, mtime=0) if path.suffix == ".gz" else nullcontext(raw)
        )
        with packed as file:
            file.write(b'{"type":"FeatureCollection","features":[')
            separator = "\n"
            for feature in features:
                file.write((separator + encode(feature)).encode())
                separator = ",\n"
            file.write(b"\n]}\n")


def _feature(
    tiles: SlideTiles,
    kind: str,
    name: str,
    rings: list[list[list[float]]],
    path_class: PathClass,
    measurements: Mapping[str, float],
) -> Feature:
    identity = f"kd_mil/{tiles.run}/{tiles.slide_id}/{kind}/{name}"
    return {
        "type": "Feature",
        "id": str(uuid5(NAMESPACE_URL, identity)),
        "geometry": {"type": "Polygon", "coordinates": rings},
        "properties": {
            "objectType": kind,
            "name": name,
            "classification": {"name": path_class.name, "color": list(path_class.color)},
            "measurements": {key: value for key, value in measurements.items() if isfinite(value)},
            "isLocked": True,
            "metadata": {key: str(value) for key, value in tiles.metadata.items()},
        },
    }
