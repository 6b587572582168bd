import numpy as np

from kd_mil.data.patches.patch_cutting import cut_patches, grid_patches


def test_a_nucleus_beside_the_grid_is_in_no_patch():
    corners, is_positive = grid_patches((10, 10), np.array([[9.0, 1.0], [1.0, 9.0], [-0.4, 3.6]]), 4)
    assert corners.tolist() == [[0, 0], [4, 0], [0, 4], [4, 4]]
    assert is_positive.tolist() == [False, False, True, False]


def test_patches_equal_plain_slices():
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (3, 40, 50), dtype=np.uint8)
    corners = np.stack([generator.integers(0, 44, 20), generator.integers(0, 34, 20)], axis=1)
    oracle = np.stack([image[:, y : y + 7, x : x + 7] for x, y in corners])
    assert np.array_equal(cut_patches(image, corners, 7), oracle)


def test_context_by_hand():
    """Of 4 pixels a side read around the 2 of the patch, each pixel is a mean with weights 3:3:1 of the nearest three.

    Columns 0 to 3 of the region give (3 * 0 + 3 * 10 + 1 * 20) / 7 and (1 * 10 + 3 * 20 + 3 * 30) / 7.
    """
    image = np.broadcast_to(10 * np.arange(8, dtype=np.uint8), (3, 8, 8))
    [inside, shifted] = cut_patches(image, np.array([[1, 3], [0, 0]]), 2, context=4)
    assert inside[0].tolist() == [[7, 23], [7, 23]]
    assert np.array_equal(shifted, inside), "at the border the region is moved inside"
    assert np.array_equal(
        cut_patches(image, np.array([[1, 3]]), 2, context=2), cut_patches(image, np.array([[1, 3]]), 2)
    )
