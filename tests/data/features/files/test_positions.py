"""Grids by hand, and positions that cannot be."""

import numpy as np
import pytest

from kd_mil.data.features.files.positions import corners_of, grid_step

BLOCK = np.array([[x, y] for y in range(4) for x in range(5)]) * 512


def moved(x, y):
    return BLOCK + np.array([x, y])


@pytest.mark.parametrize(
    ("coords", "step"),
    [
        (BLOCK, 512),
        (BLOCK[::-1], 512),
        (BLOCK + 0.25, 512),
        (np.concatenate([BLOCK, moved(3083, 2571)]), 512),  # CLAM: every piece of tissue has a grid of its own
        (np.concatenate([moved(17, 5), moved(3011, 2571), moved(6007, 1)]), 512),
        (np.delete(BLOCK, [1, 2, 7, 8, 13], axis=0), 512),
        (np.array([[0, 0], [0, 300], [0, 900]]), 300),
        (np.array([[0, 0], [512, 0], [1024, 0]]), 512),
        (np.array([[7, 7]]), None),
        (np.zeros((20, 2)), None),
        (np.arange(20)[:, None] ** 2 * [7, 11], None),
        (np.random.default_rng(2).integers(0, 50_000, (20, 2)), None),
        (np.array([[0, 0], [7, 0], [18, 0], [31, 0]]), None),
    ],
)
def test_the_most_frequent_distance_of_neighbours(coords, step):
    assert grid_step(coords) == step


def test_slideflow_keeps_the_middles_of_tiles():
    assert corners_of(BLOCK + 256).tolist() == BLOCK.tolist()
    assert corners_of(BLOCK + 256 + 512).tolist() == (BLOCK + 512).tolist()
    assert corners_of(BLOCK).tolist() == BLOCK.tolist(), "as middles they would leave the slide"
