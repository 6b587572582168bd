import gzip
import json
from itertools import chain
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
import shapely
from scipy.ndimage import label

from kd_mil.core.errors import UserError
from kd_mil.slides.overlays.geojson import (
    OTHER,
    TUMOUR,
    SlideTiles,
    merged_regions,
    tile_detections,
    write_geojson,
)
from kd_mil.slides.overlays.tile_regions import merge_tiles

SIZE = 100


def tiles(coords: list, probs: list, **changes) -> SlideTiles:
    coords, probs = np.array(coords).reshape(-1, 2), np.array(probs, np.float32)
    arguments = {
        "slide_id": "slide",
        "run": "run",
        "coords": coords,
        "tile_size_level0": SIZE,
        "measurements": {"student_prob": probs, "teacher_attention": probs / 2},
        "metadata": {"model": "weno_dsmil", "epoch": 7},
    }
    return SlideTiles(**(arguments | changes))


def written(path: Path, features) -> list[dict]:
    write_geojson(path, features)
    collection = json.loads(path.read_text(), parse_constant=pytest.fail)  # pytest.fail: no NaN or Infinity
    assert collection["type"] == "FeatureCollection"
    return collection["features"]


def everything(of: SlideTiles):
    return chain(merged_regions(of, "student_prob", 0.5), tile_detections(of, "student_prob", 0.5))


def test_every_rule_of_qupath(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    coords = [(x, y) for y in range(0, 1000, SIZE) for x in range(0, 1000, SIZE)]
    probs = generator.random(100)
    probs[::9] = np.nan
    probs[4] = np.inf
    features = written(tmp_path / "a.geojson", everything(tiles(coords, probs)))

    assert len({feature["id"] for feature in features}) == len(features)
    for feature in features:
        assert list(feature) == ["type", "id", "geometry", "properties"]
        assert feature["type"] == "Feature"
        assert str(UUID(feature["id"])) == feature["id"]
        assert feature["geometry"]["type"] == "Polygon"
        for ring in feature["geometry"]["coordinates"]:
            assert len(ring) >= 5
            assert ring[0] == ring[-1]
        assert shapely.from_geojson(json.dumps(feature["geometry"])).is_valid
        properties = feature["properties"]
        assert properties["objectType"] in ("detection", "annotation")
        assert isinstance(properties["name"], str)
        assert sorted(properties["classification"]) == ["color", "name"]
        assert len(properties["classification"]["color"]) == 3
        assert all(isinstance(value, int) and 0 <= value < 256 for value in properties["classification"]["color"])
        assert all(isinstance(value, int | float) for value in properties["measurements"].values())
        assert properties["isLocked"] is True
        assert properties["metadata"] == {"model": "weno_dsmil", "epoch": "7"}


def test_a_tile_by_hand(tmp_path: Path) -> None:
    first, second = written(
        tmp_path / "a.geojson", tile_detections(tiles([(0, 0), (300, 200)], [0.4, 0.75]), "student_prob", 0.5)
    )
    assert second["geometry"]["coordinates"] == [[[300, 200], [400, 200], [400, 300], [300, 300], [300, 200]]]
    assert second["properties"]["name"] == "p000001"
    assert second["properties"]["objectType"] == "detection"
    assert second["properties"]["classification"] == {"name": "Tumor", "color": [200, 0, 0]}
    assert second["properties"]["measurements"] == {"student_prob": 0.75, "teacher_attention": 0.375}
    assert first["properties"]["classification"]["name"] == OTHER.name


def test_values_that_are_not_finite_are_left_out() -> None:
    table = {"student_prob": np.array([np.nan, 0.5]), "fused": np.array([0.25, np.inf])}
    first, second = tile_detections(tiles([(0, 0), (100, 0)], [0, 0], measurements=table), "student_prob", 0.5)
    assert first["properties"]["measurements"] == {"fused": 0.25}
    assert second["properties"]["measurements"] == {"student_prob": 0.5}
    assert [one["properties"]["classification"]["name"] for one in (first, second)] == [OTHER.name, TUMOUR.name]


def test_bounds_offset_moves_tiles_and_regions() -> None:
    moved = tiles([(1000, 500)], [0.9], bounds_offset=(1000, 400))
    for feature in everything(moved):
        corners = np.array(feature["geometry"]["coordinates"][0])
        assert corners.min(axis=0).tolist() == [0, 100]
        assert corners.max(axis=0).tolist() == [100, 200]


def test_ids_are_stable_and_differ_between_runs_slides_and_kinds() -> None:
    def ids(of: SlideTiles) -> list[str]:
        return [feature["id"] for feature in everything(of)]

    coords, probs = [(0, 0), (100, 0)], [0.9, 0.1]
    first = ids(tiles(coords, probs))
    assert first == ids(tiles(coords, probs))
    every = [*first, *ids(tiles(coords, probs, run="other")), *ids(tiles(coords, probs, slide_id="other"))]
    assert len(set(every)) == 9


def test_regions_by_hand() -> None:
    """An L of three tiles, a tile that touches it at a corner alone, and one below the threshold."""
    coords = [(0, 0), (100, 0), (0, 100), (200, 100), (300, 100)]
    of = tiles(coords, [0.6, 0.9, 0.6, 0.5, 0.4])
    large, small = merged_regions(of, "student_prob", 0.5)
    outline = shapely.from_geojson(json.dumps(large["geometry"]))
    assert outline.equals(shapely.union_all(shapely.box([0, 100, 0], [0, 0, 100], [100, 200, 100], [100, 100, 200])))
    assert len(large["geometry"]["coordinates"][0]) == 7  # six corners: no vertex where tiles meet on a straight edge
    assert large["properties"]["objectType"] == "annotation"
    assert large["properties"]["measurements"] == {
        "tiles": 3,
        "student_prob mean": pytest.approx(0.7),
        "student_prob max": pytest.approx(0.9),
        "teacher_attention mean": pytest.approx(0.35),
        "teacher_attention max": pytest.approx(0.45),
    }
    assert small["properties"]["measurements"]["tiles"] == 1
    assert (large["properties"]["name"], small["properties"]["name"]) == ("Tumor 1", "Tumor 2")


def test_a_ring_of_tiles_keeps_its_hole() -> None:
    coords = [(x, y) for x in (0, 100, 200) for y in (0, 100, 200) if (x, y) != (100, 100)]
    (region,) = merged_regions(tiles(coords, [1.0] * 8), "student_prob", 0.5)
    assert len(region["geometry"]["coordinates"]) == 2
    assert shapely.from_geojson(json.dumps(region["geometry"])).area == 8 * SIZE**2


def test_merging_agrees_with_a_flood_fill() -> None:
    """Connected components of the grid are the oracle; overlapping tiles merge too."""
    chosen = np.random.default_rng(1).random((30, 30)) < 0.55
    corners = np.argwhere(chosen)[:, ::-1] * SIZE
    polygons = merge_tiles(corners, SIZE).outlines
    components, count = label(chosen)
    assert len(polygons) == count
    areas = sorted(np.bincount(components[chosen])[1:] * SIZE**2, reverse=True)
    assert [polygon.area for polygon in polygons] == areas
    assert len(merge_tiles(np.array([[0, 0], [50, 50], [220, 0]]), SIZE).outlines) == 2


def test_no_tiles(tmp_path: Path) -> None:
    assert written(tmp_path / "a.geojson", everything(tiles([], []))) == []
    assert list(merged_regions(tiles([(0, 0)], [np.nan]), "student_prob", 0.5)) == []


def test_compressed_file_holds_the_same_and_is_reproducible(tmp_path: Path) -> None:
    of = tiles([(0, 0), (100, 0)], [0.2, 0.8])
    for name in ("a.geojson", "a.geojson.gz", "b.geojson.gz"):
        write_geojson(tmp_path / name, everything(of))
    assert gzip.decompress((tmp_path / "a.geojson.gz").read_bytes()) == (tmp_path / "a.geojson").read_bytes()
    assert (tmp_path / "a.geojson.gz").read_bytes() == (tmp_path / "b.geojson.gz").read_bytes()


def test_a_failing_export_leaves_the_old_file(tmp_path: Path) -> None:
    def features():
        yield from tile_detections(tiles([(0, 0)], [0.2]), "student_prob", 0.5)
        raise RuntimeError("torn")

    (tmp_path / "a.geojson").write_text("old")
    with pytest.raises(RuntimeError, match="torn"):
        write_geojson(tmp_path / "a.geojson", features())
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]


def test_mistakes_are_named() -> None:
    with pytest.raises(UserError, match="slide 'slide': tile coordinates have shape"):
        SlideTiles("slide", "run", np.zeros((3, 4)), SIZE, {})
    with pytest.raises(UserError, match="2 values of 'student_prob' for 1 tiles"):
        tiles([(0, 0)], [0.1, 0.2])
    with pytest.raises(UserError, match=r"no measurement 'fused' to classify by; there are: student_prob, teacher"):
        list(tile_detections(tiles([(0, 0)], [0.1]), "fused", 0.5))
