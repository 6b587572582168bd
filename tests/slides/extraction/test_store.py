"""Files of the store: what is written reads back, others can read it, and it is whole or absent."""

import json
import os
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from kd_mil.core.errors import UserError
from kd_mil.data.features.files.feature_file import FeatureFile
from kd_mil.slides.extraction.store import is_complete, read_attributes, read_slide, slide_file, write_slide
from kd_mil.slides.tiles.tiling import Tiles

SETTINGS = {"tiling": {"tile_size": 64, "mpp": None}, "encoder": {"name": "toy", "weights": "00ff"}, "annotation": None}
RNG = np.random.default_rng(0)


def tiles_of(count: int) -> Tiles:
    return Tiles(
        coords=RNG.integers(0, 5000, (count, 2)),
        tissue=RNG.random(count, np.float32),
        tile_size=64,
        tile_size_level0=128,
        mpp=0.5,
        overlap=0,
        slide_name="s1",
        slide_dimensions=(6000, 5000),
        slide_mpp=0.25,
    )


@pytest.mark.parametrize("count", [0, 1, 7])
def test_everything_reads_back(tmp_path, count):
    tiles, features = tiles_of(count), RNG.normal(size=(count, 5)).astype(np.float16)
    fractions = RNG.random(count, np.float32)
    write_slide(tmp_path / "s1.h5", tiles, features, fractions, attributes=SETTINGS)
    stored = read_slide(tmp_path / "s1.h5")
    np.testing.assert_array_equal(stored.features, features)
    np.testing.assert_array_equal(stored.tumour_fraction, fractions)
    for name, value in vars(tiles).items():
        np.testing.assert_array_equal(getattr(stored.tiles, name), value)
    assert {name: stored.attributes[name] for name in SETTINGS} == SETTINGS
    assert stored.attributes["mpp"] == 0.5
    assert read_slide(tmp_path / "s1.h5", with_features=False).features is None


def test_the_layout_is_tridents(tmp_path):
    """Names, types and attributes as trident/IO.py writes them; contiguous, unlike there."""
    write_slide(tmp_path / "s1.h5", tiles_of(7), np.ones((7, 5)), attributes=SETTINGS)
    with h5py.File(tmp_path / "s1.h5") as file:
        assert set(file) == {"coords", "features", "tissue_fraction"}
        assert file["coords"].shape == (7, 2)
        assert file["coords"].dtype == np.int64
        assert file["features"].dtype == np.float16
        assert file["features"].chunks is None
        assert dict(file["coords"].attrs) == {
            "patch_size": 64,
            "patch_size_level0": 128,
            "level0_magnification": 40,
            "target_magnification": 20,
            "overlap": 0,
            "name": "s1",
            "savetodir": str(tmp_path),
            "level0_width": 6000,
            "level0_height": 5000,
        }
        assert dict(file["features"].attrs) == {"name": "s1", "savetodir": str(tmp_path), "encoder": "toy"}
        assert json.loads(file.attrs["kd_mil_tiling"]) == SETTINGS["tiling"]


def test_the_magnification_asked_for_reads_back(tmp_path):
    tiles = replace(tiles_of(3), mpp=0.9998, magnification=10)
    write_slide(tmp_path / "s1.h5", tiles, attributes={"tiling": {"magnification": 10}})
    assert read_slide(tmp_path / "s1.h5").tiles.target_magnification == 10
    with h5py.File(tmp_path / "s1.h5") as file:
        assert file["coords"].attrs["target_magnification"] == 10


def test_coordinates_alone_have_the_same_layout(tmp_path):
    path = slide_file(tmp_path, "s1", with_features=False)
    write_slide(path, tiles_of(3), attributes={"encoder": None})
    assert path == tmp_path / "patches" / "s1_patches.h5"
    stored = read_slide(path)
    assert stored.features is None
    assert stored.tumour_fraction is None
    assert len(stored.tiles.coords) == 3


def test_tumour_area_becomes_labels_at_the_threshold_when_read(tmp_path):
    fractions = np.array([0, 0.2499, 0.25, 0.7, 1], np.float32)
    write_slide(tmp_path / "a.h5", tiles_of(5), np.ones((5, 2)), fractions, attributes={})
    file = FeatureFile(tmp_path / "a.h5")
    assert file.instance_labels().tolist() == [0, 0, 1, 1, 1]
    assert file.instance_labels(0.7).tolist() == [0, 0, 0, 1, 1]
    write_slide(tmp_path / "b.h5", tiles_of(5), np.ones((5, 2)), attributes={})
    assert FeatureFile(tmp_path / "b.h5").instance_labels().tolist() == [-1] * 5, "no annotation: unknown"
    assert torch.equal(file.read(torch.arange(5), torch.float16), torch.ones(5, 2, dtype=torch.float16))


def test_other_settings_are_named(tmp_path):
    path = tmp_path / "s1.h5"
    assert not is_complete(path, SETTINGS)
    write_slide(path, tiles_of(2), np.ones((2, 2)), attributes=SETTINGS)
    assert is_complete(path, SETTINGS)
    assert is_complete(path, {**SETTINGS, "annotation": "other"}), "decides no feature"
    other = {**SETTINGS, "tiling": {"tile_size": 96, "mpp": None}, "encoder": {"name": "toy", "weights": "11aa"}}
    with pytest.raises(UserError) as caught:
        is_complete(path, other)
    assert "tiling.tile_size was 64 and is 96, encoder.weights was '00ff' and is '11aa'" in str(caught.value)
    with pytest.raises(UserError, match=r"encoder\.name was 'toy' and is None"):
        is_complete(path, {"encoder": None})


def test_a_damaged_file_does_not_count(tmp_path):
    path = tmp_path / "s1.h5"
    write_slide(path, tiles_of(200), np.ones((200, 50)), attributes=SETTINGS)
    path.write_bytes(path.read_bytes()[:1000])
    assert not is_complete(path, SETTINGS)
    with pytest.raises(UserError, match=r"not readable as h5 .*extract the slide again"):
        read_attributes(path)
    write_slide(path, tiles_of(200), np.ones((200, 50)), attributes=SETTINGS)
    with h5py.File(path, "a") as file:
        del file["coords"]
    assert not is_complete(path, SETTINGS), "attributes alone are not a slide"
    with pytest.raises(UserError, match=r"not readable as h5 .*extract the slide again"):
        read_slide(path)


def test_foreign_files_have_no_attributes_and_are_not_read_as_ours(tmp_path):
    with h5py.File(tmp_path / "clam.h5", "w") as file:
        file["features"], file["coords"] = np.ones((3, 4), np.float32), np.ones((3, 2), np.int32)
    assert read_attributes(tmp_path / "clam.h5") == {}
    with pytest.raises(UserError, match="not written by"):
        read_slide(tmp_path / "clam.h5")
    with pytest.raises(UserError, match="does not exist"):
        read_slide(tmp_path / "none.h5")


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e5])
def test_features_beyond_half_precision_are_refused_and_leave_nothing(tmp_path, value):
    features = np.ones((3, 4), np.float32)
    features[1, 2] = value
    with pytest.raises(UserError, match="tile 1 are NaN or beyond half precision"):
        write_slide(tmp_path / "s1.h5", tiles_of(3), features, attributes={})
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_earlier_file(tmp_path):
    path = tmp_path / "s1.h5"
    write_slide(path, tiles_of(3), np.ones((3, 4)), attributes={})
    before = path.read_bytes()
    with pytest.raises(TypeError):
        write_slide(path, tiles_of(3), np.zeros((3, 4)), attributes={"set": {1}})
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["s1.h5"]


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    Path(tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_slide(tmp_path / "file" / "s1.h5", replace(tiles_of(1)), attributes={})
