"""Where tiles of feature files lie."""

import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from kd_mil.prediction.tile_geometry import TileGeometry, blank_picture, feature_geometry, grid_step

GRID = np.array([[x, y] for y in (0, 512, 1536) for x in (100, 612)])


def file_with(path: Path, **attributes: object) -> Path:
    with h5py.File(path, "w") as file:
        file["coords"] = GRID
        file["coords"].attrs.update(attributes)
    return path


def test_the_file_says(tmp_path: Path) -> None:
    path = file_with(tmp_path / "a.h5", patch_size_level0=448, level0_width=9000, level0_height=8000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        geometry = feature_geometry(path, torch.from_numpy(GRID))
    assert geometry is not None
    assert (geometry.tile_size_level0, geometry.extent) == (448, (9000, 8000))
    assert blank_picture(geometry, 900).thumbnail.shape == (800, 900, 3)
    assert blank_picture(geometry, 900).downsample == 10


def test_the_user_says(tmp_path: Path) -> None:
    geometry = feature_geometry(file_with(tmp_path / "a.h5", patch_size_level0=448), torch.from_numpy(GRID), 300)
    assert geometry is not None
    assert geometry.tile_size_level0 == 300


def test_nobody_says(tmp_path: Path) -> None:
    """The step of the grid is taken, and said."""
    with pytest.warns(UserWarning, match=r"a.h5 does not say how large its tiles are: 512 taken.*tile_size_level0"):
        geometry = feature_geometry(file_with(tmp_path / "a.h5", level0_width="None"), torch.from_numpy(GRID))
    assert geometry is not None
    assert geometry.tile_size_level0 == 512
    assert geometry.extent is None
    assert blank_picture(geometry, 2048).thumbnail.shape == (2048, 1124, 3)


def test_nothing_to_draw(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="no level-0 coordinates"):
        assert feature_geometry(tmp_path / "a.npy", None) is None
    with pytest.warns(UserWarning, match="no heat maps"):
        assert feature_geometry(tmp_path / "a.npy", torch.tensor([[5, 5]])) is None


def test_grid_step_by_hand() -> None:
    assert grid_step(GRID) == 512
    assert grid_step(np.array([[0, 0], [0, 300], [0, 900]])) == 300
    assert grid_step(np.array([[7, 7]])) is None


def test_a_small_extent_is_not_enlarged() -> None:
    picture = blank_picture(TileGeometry(np.array([[0, 0]]), 64), 1536)
    assert picture.thumbnail.shape == (64, 64, 3)
    assert picture.downsample == 1
