"""Colour normalisation of whole images."""

import numpy as np
import pytest
from skimage.color import lab2rgb, rgb2lab, rgb_from_hed

from kd_mil.data.patches.stain_normalisation import REFERENCE, normalise_stain


def tissue(haematoxylin: float, eosin: float) -> np.ndarray:
    """One piece of tissue (3, 64, 64) with either dye strong or weak."""
    rng = np.random.default_rng(0)
    nuclei, matrix = rng.uniform(0, 1, (64, 64)) ** 2, rng.uniform(0, 0.5, (64, 64))
    density = np.stack([haematoxylin * nuclei, eosin * matrix, 0 * matrix], axis=-1) @ rgb_from_hed
    return np.rint(255 * 10**-density).astype(np.uint8).transpose(2, 0, 1)


def difference(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.abs(first.astype(int) - second).mean())


@pytest.mark.parametrize("dyes", [(0.4, 0.6), (0.8, 0.4), (0.6, 0.9)])
def test_any_look_becomes_that_of_the_reference(dyes):
    lab = rgb2lab(normalise_stain(tissue(*dyes), "reinhard"), channel_axis=0)
    np.testing.assert_allclose(lab.mean((1, 2)), REFERENCE[0], atol=2.5)
    np.testing.assert_allclose(lab.std((1, 2)), REFERENCE[1], rtol=0.25)


def test_two_stainings_of_one_tissue_become_alike():
    pale, dark = tissue(0.4, 0.3), tissue(0.8, 0.6)
    assert difference(pale, dark) > 20
    assert difference(normalise_stain(pale, "reinhard"), normalise_stain(dark, "reinhard")) < 5


def test_normalised_twice_is_normalised_once():
    once = normalise_stain(tissue(0.6, 0.5), "reinhard")
    assert difference(normalise_stain(once, "reinhard"), once) < 3


@pytest.mark.parametrize("size", [5, 100, 500])
@pytest.mark.parametrize("level", [30, 200, 201])
def test_one_colour_becomes_the_references_mean(size, level):
    image = normalise_stain(np.full((3, size, size), level, dtype=np.uint8), "reinhard")
    assert np.abs(image - 255 * lab2rgb(REFERENCE[0][:, None, None], channel_axis=0)).max() <= 1


def test_grey_images_get_no_colour_noise():
    grey = np.random.default_rng(0).integers(60, 220, (1, 40, 40), dtype=np.uint8).repeat(3, axis=0)
    lab = rgb2lab(normalise_stain(grey, "reinhard"), channel_axis=0)
    inside = (lab[0] > 65) & (lab[0] < 85)  # what fits into RGB
    assert lab[1:, inside].std(axis=1).max() < 1


def test_none_leaves_the_image():
    image = tissue(0.6, 0.5)
    assert normalise_stain(image, "none") is image
