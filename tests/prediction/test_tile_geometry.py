"""Where tiles of feature files lie."""

import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest

from kd_mil.core.errors import UserError
from kd_mil.data.features.files.feature_file import FeatureFile
from kd_mil.prediction.tile_geometry import TileGeometry, blank_picture, feature_geometry

GRID = np.array([[x, y] for y in (0, 512, 1536) for x in (100, 612)])


def file_with(path: Path, coords: np.ndarray = GRID, of_file: dict | None = None, **attributes: object) -> FeatureFile:
    """A file with these coordinates, its attributes and those of the coordinates."""
    with h5py.File(path, "w") as file:
        file["features"], file["coords"] = np.zeros((len(coords), 2), np.float32), coords
        file["coords"].attrs.update(attributes)
        file.attrs.update(of_file or {})
    return FeatureFile(path)


def test_the_file_says(tmp_path: Path) -> None:
    path = file_with(tmp_path / "a.h5", patch_size_level0=448, level0_width=9000, level0_height=8000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        geometry = feature_geometry(path)
    assert geometry is not None
    assert (geometry.tile_size_level0, geometry.extent) == (448, (9000, 8000))
    assert blank_picture(geometry, 900).thumbnail.shape == (800, 900, 3)
    assert blank_picture(geometry, 900).downsample == 10


def test_the_user_says(tmp_path: Path) -> None:
    geometry = feature_geometry(file_with(tmp_path / "a.h5", patch_size_level0=448), None, 300)
    assert geometry is not None
    assert geometry.tile_size_level0 == 300


def test_nobody_says(tmp_path: Path) -> None:
    """The step of the grid is taken, and said."""
    with pytest.warns(UserWarning, match=r"a.h5 does not say how large its tiles are: 512 taken.*tile_size_level0"):
        geometry = feature_geometry(file_with(tmp_path / "a.h5", level0_width="None"))
    assert geometry is not None
    assert geometry.tile_size_level0 == 512
    assert geometry.extent is None
    assert blank_picture(geometry, 2048).thumbnail.shape == (2048, 1124, 3)


def test_nothing_to_draw(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((3, 2)))
    with pytest.warns(UserWarning, match="no level-0 coordinates"):
        assert feature_geometry(FeatureFile(tmp_path / "a.npy")) is None
    with pytest.warns(UserWarning, match="no heat maps"):
        assert feature_geometry(file_with(tmp_path / "a.h5", np.array([[5, 5]]))) is None


@pytest.mark.parametrize("value", [512, 512.0, "512", np.bytes_(b"512"), np.array([512])])
def test_sizes_may_be_written_in_several_ways(tmp_path: Path, value: object) -> None:
    for of_file, of_coords in (({"patch_size_level0": value}, {}), ({}, {"patch_size_level0": value})):
        geometry = feature_geometry(file_with(tmp_path / "a.h5", of_file=of_file, **of_coords))
        assert geometry is not None
        assert geometry.tile_size_level0 == 512


@pytest.mark.parametrize("value", [0, -512, np.nan, np.inf, 1e30, "large", np.array([512, 256]), 20_000])
def test_sizes_that_cannot_be_are_refused(tmp_path: Path, value: object) -> None:
    file = file_with(tmp_path / "a.h5", patch_size_level0=value, level0_width=9000, level0_height=8000)
    with pytest.raises(UserError, match=r"a\.h5: (attribute patch_size_level0|its tiles are)"):
        feature_geometry(file)


@pytest.mark.parametrize("value", ["wide", -5, np.nan])
def test_extents_that_cannot_be_are_refused(tmp_path: Path, value: object) -> None:
    with pytest.raises(UserError, match=r"a\.h5: attribute level0_width is"):
        feature_geometry(file_with(tmp_path / "a.h5", patch_size_level0=512, level0_width=value))


@pytest.mark.parametrize(("side", "downsample"), [(256, [2.0, 2.0]), (512, [1.0, 1.0]), (128, 4.0)])
def test_clam_counts_in_pixels_of_a_level(tmp_path: Path, side: int, downsample: object) -> None:
    geometry = feature_geometry(file_with(tmp_path / "a.h5", patch_size=side, patch_level=1, downsample=downsample))
    assert geometry is not None
    assert geometry.tile_size_level0 == 512


@pytest.mark.parametrize(
    ("coords", "of_file", "of_coords"),
    [
        (GRID * 0.5, {"unit": "um", "tile_size_um": 256.0}, {}),
        (GRID * 0.5, {"tile_size_um": 256.0, "extractor": "uni"}, {}),
        (GRID * 0.5, {"tile_size": 256.0}, {"unit": "um"}),
        (GRID // 512 * 224, {"extractor": "ctranspath"}, {}),
        (GRID // 512 * 256.0, {"extractor": "ctranspath"}, {}),
    ],
)
def test_stamp_is_scaled_by_the_slide(tmp_path: Path, coords: np.ndarray, of_file: dict, of_coords: dict) -> None:
    """On a slide of 0.5 µm per pixel, STAMP's 256 µm are 512 pixels, in whichever of its units."""
    file = file_with(tmp_path / "a.h5", coords, of_file, **of_coords)
    with pytest.warns(UserWarning, match="STAMP"):
        assert feature_geometry(file) is None
    geometry = feature_geometry(file, slide_mpp=0.5)
    assert geometry is not None
    assert (geometry.tile_size_level0, geometry.mpp) == (512, 0.5)
    assert np.ptp(geometry.coords, axis=0).tolist() == [512, 1536]


def test_old_stamp_of_an_unknown_unit_is_never_pixels(tmp_path: Path) -> None:
    file = file_with(tmp_path / "a.h5", GRID, {"extractor": "ctranspath"})
    with pytest.warns(UserWarning, match="an unknown unit"):
        assert feature_geometry(file, slide_mpp=0.5) is None


def test_a_small_extent_is_not_enlarged() -> None:
    picture = blank_picture(TileGeometry(np.array([[0, 0]]), 64), 1536)
    assert picture.thumbnail.shape == (64, 64, 3)
    assert picture.downsample == 1
