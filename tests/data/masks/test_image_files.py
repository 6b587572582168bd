"""Masks of files are brought to the size of the images."""

import numpy as np
from PIL import Image

from kd_mil.data.masks.image_files import resized_mask


def test_masks_are_reduced_by_area(tmp_path):
    """Three of four pixels white: positive; one of four: not; values below 128 next to 255 are background."""
    pixels = np.array([[255, 255, 255, 0], [255, 0, 0, 0], [0, 0, 255, 120], [0, 0, 255, 255]], np.uint8)
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    assert resized_mask(tmp_path / "mask.png", (2, 2)).tolist() == [[1, 0], [0, 1]]
    Image.fromarray((pixels > 127).astype(np.uint8) * 3).save(tmp_path / "small.png")
    assert resized_mask(tmp_path / "small.png", (2, 2)).tolist() == [[1, 0], [0, 1]], "small values count from 1 on"
    assert not resized_mask(tmp_path / "small.png", (2, 2), positive=[2]).any()
