"""Tiles of a pyramid: those of `openslide.deepzoom` itself, and the pixels of the slide."""

import io

import numpy as np
import pytest
from openslide import ImageSlide
from openslide.deepzoom import DeepZoomGenerator
from PIL import Image, ImageColor

from kd_mil.slides.formats.deep_zoom import BEYOND, DeepZoom
from kd_mil.slides.formats.reader import open_slide


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    y, x = np.mgrid[:600, :700]
    pixels = np.stack([x // 4 % 256, y // 4 % 256, (x + y) // 8 % 256], -1).astype(np.uint8)
    path = tmp_path_factory.mktemp("slide") / "s.png"
    Image.fromarray(pixels).save(path)
    return path


def pixels_of(jpeg):
    return np.asarray(Image.open(io.BytesIO(jpeg)), int)


def test_tiles_are_those_of_openslide_whatever_reads_the_slide(picture):
    """The oracle reads the same file by itself; edges are filled with the colour of the viewer."""
    oracle = DeepZoomGenerator(ImageSlide(picture), 256, 0, limit_bounds=False)
    ours, thumbnail = DeepZoom(open_slide(picture, 0.5)), DeepZoom(Image.open(picture))
    assert ours.levels == oracle.level_count
    for level, column, row in ((oracle.level_count - 1, 1, 1), (oracle.level_count - 1, 2, 2), (9, 1, 1), (8, 0, 0)):
        expected = np.asarray(oracle.get_tile(level, (column, row)).convert("RGB"), int)
        for zoom in (ours, thumbnail):
            found = pixels_of(zoom.tile(level, column, row))
            assert found.shape == (256, 256, 3)
            height, width = expected.shape[:2]
            assert np.abs(found[:height, :width] - expected).mean() < 4  # JPEG
            for beyond in (found[height + 8 :], found[:, width + 8 :]):
                assert (np.abs(beyond - ImageColor.getrgb(BEYOND)) < 5).all()


@pytest.mark.parametrize("place", [(-1, 0, 0), (99, 0, 0), (10, 3, 0), (10, 0, -1)])
def test_there_is_no_tile_elsewhere(picture, place):
    assert DeepZoom(open_slide(picture, 0.5)).tile(*place) is None
