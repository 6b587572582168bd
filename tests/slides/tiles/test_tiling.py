"""Grids by resolution, tissue fractions against a plain loop, TRIDENT's counts and attributes, and odd slides."""

import warnings

import numpy as np
import pytest
from PIL import Image

from kd_mil.core.errors import UserError
from kd_mil.slides.coverage import mask_coverage
from kd_mil.slides.formats.reader import open_slide
from kd_mil.slides.tiles.tiling import TilingSettings, grid_of, nominal_magnification, tile_grid
from kd_mil.slides.tiles.tissue import TissueMask, find_tissue


def blank_slide(tmp_path, width: int, height: int, mpp: float):
    Image.new("RGB", (width, height), (210, 130, 180)).save(tmp_path / "blank.png")
    return open_slide(tmp_path / "blank.png", mpp=mpp)


def everywhere(slide) -> TissueMask:
    x, y, width, height = slide.bounds
    return TissueMask(np.ones((height, width), dtype=bool), np.empty((0, 0, 3), np.uint8), (x, y), 1.0)


def coverage_by_loop(mask, origin, downsample, coords, size) -> list[float]:
    """Every level-0 pixel asks its mask pixel."""
    result = []
    for x, y in coords:
        inside = 0
        for row in range(y, y + size):
            for column in range(x, x + size):
                i, j = (row + 0.5 - origin[1]) // downsample, (column + 0.5 - origin[0]) // downsample
                if 0 <= i < mask.shape[0] and 0 <= j < mask.shape[1]:
                    inside += mask[int(i), int(j)]
        result.append(inside / size**2)
    return result


@pytest.mark.parametrize(("downsample", "size"), [(1, 7), (4, 8), (4, 10), (16, 5), (3, 40)])
def test_coverage_equals_a_loop_over_pixels(downsample, size):
    rng = np.random.default_rng(size)
    mask = rng.random((9, 12)) < 0.4
    coords = rng.integers(-size, 12 * downsample, size=(25, 2))
    found = mask_coverage(mask, (3, -2), downsample, coords, size)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, coverage_by_loop(mask, (3, -2), downsample, coords, size), atol=1e-6)


def test_coverage_with_fractions_of_a_mask_pixel_by_hand():
    """Mask pixels of 2.5 level-0 pixels; a tile of 4 covers the True pixel (0, 0) for 2.5 x 2.5 of its 16."""
    mask = np.array([[True, False], [False, False]])
    assert mask_coverage(mask, (0, 0), 2.5, np.array([[0, 0]]), 4).item() == pytest.approx(6.25 / 16)
    assert mask_coverage(mask, (0, 0), 2.5, np.empty((0, 2), np.int64), 4).shape == (0,)


def test_grid_by_hand_row_by_row():
    assert grid_of((10, 20, 9, 8), size=4, step=4).tolist() == [
        *([10, 20], [14, 20], [18, 20]),
        *([10, 24], [14, 24], [18, 24]),
    ]
    assert grid_of((0, 0, 8, 4), size=4, step=3).tolist() == [[0, 0], [3, 0], [6, 0], [0, 3], [3, 3], [6, 3]]
    assert grid_of((0, 0, 3, 6), size=4, step=4).tolist() == [[0, 0], [0, 4]], "a slide narrower than a tile has one"


@pytest.mark.parametrize(
    ("mpp", "magnification"),
    [(0.12, 80), (0.17, 60), (0.226, 40), (0.25, 40), (0.499, 20), (0.55, 20), (1.0, 10), (2.0, 5), (4.0, 2.5)],
)
def test_nominal_magnification(mpp, magnification):
    assert nominal_magnification(mpp) == magnification


def test_magnification_counts_pixels_of_the_slide(tmp_path):
    """20x of a 40x slide is every second pixel, whatever the pixels measure."""
    slide = blank_slide(tmp_path, 1000, 800, mpp=0.226)
    tiles = tile_grid(slide, everywhere(slide), TilingSettings(tile_size=100, magnification=20))
    assert (tiles.tile_size_level0, tiles.mpp) == (200, 0.452)
    assert (tiles.level0_magnification, tiles.target_magnification) == (40, 20)
    assert tiles.coords.tolist() == [[x, y] for y in range(0, 800, 200) for x in range(0, 1000, 200)]
    assert tiles.coords.dtype == np.int64
    np.testing.assert_array_equal(tiles.tissue, np.ones(20, np.float32))


def test_mpp_measures_length(tmp_path):
    slide = blank_slide(tmp_path, 1000, 800, mpp=0.226)
    tiles = tile_grid(slide, everywhere(slide), TilingSettings(tile_size=100, mpp=0.5, min_tissue=0))
    assert tiles.tile_size_level0 == round(100 * 0.5 / 0.226) == 221
    assert tiles.mpp == 0.5
    assert tiles.target_magnification == pytest.approx(40 * 0.226 / 0.5)
    # What a reader of TRIDENT's attributes computes.
    attributes = tiles.attributes("job")
    assert (
        round(attributes["patch_size"] * attributes["level0_magnification"] / attributes["target_magnification"]) == 221
    )


def test_the_magnification_of_the_tiles_is_the_one_asked_for(tmp_path):
    """Aperio's levels are 4.0003 times coarser, Hamamatsu's pixels measure 0.22737451 um: 10x all the same."""
    slide = blank_slide(tmp_path, 4000, 3000, mpp=0.22737451)
    slide.level_downsamples = (1.0, 4.0003)
    for asked, size in ((10, 1024), (20, 512), (15, 683), (12.5, 819)):
        tiles = tile_grid(slide, everywhere(slide), TilingSettings(tile_size=256, magnification=asked))
        assert (tiles.target_magnification, tiles.tile_size_level0) == (asked, size)
    slide = blank_slide(tmp_path, 400, 300, mpp=0.49895731)
    assert tile_grid(slide, everywhere(slide), TilingSettings(64, mpp=0.5)).target_magnification == 20


def test_target_within_one_percent_of_a_level_takes_the_level(tmp_path):
    slide = blank_slide(tmp_path, 1000, 800, mpp=0.499)
    tiles = tile_grid(slide, everywhere(slide), TilingSettings(tile_size=256, mpp=0.5))
    assert (tiles.tile_size_level0, tiles.mpp, tiles.target_magnification) == (256, 0.499, 20)


def test_overlap_and_edges(tmp_path):
    slide = blank_slide(tmp_path, 300, 100, mpp=0.5)
    tiles = tile_grid(slide, everywhere(slide), TilingSettings(tile_size=100, mpp=0.5, overlap=20, min_tissue=0.5))
    assert tiles.coords.tolist() == [[0, 0], [80, 0], [160, 0], [240, 0]]  # row 80 has 20 of 100 rows on the slide
    assert tiles.tissue.tolist() == pytest.approx([1, 1, 1, 0.6])
    assert (slide.read(240, 0, (100, 100), tiles.mpp)[:, 60:] == 255).all()


@pytest.mark.parametrize(("min_tissue", "columns"), [(0, [0, 1, 2]), (0.3, [0, 1, 2]), (0.31, [0, 1]), (1, [0, 1])])
def test_minimum_tissue(tmp_path, min_tissue, columns):
    """Tissue over the first 230 of 400 columns: fractions 1, 1, 0.3, 0."""
    slide = blank_slide(tmp_path, 400, 100, mpp=0.5)
    tissue = everywhere(slide)
    tissue.mask[:, 230:] = False
    tiles = tile_grid(slide, tissue, TilingSettings(tile_size=100, mpp=0.5, min_tissue=min_tissue))
    assert (tiles.coords[:, 0] / 100).tolist() == columns


def test_bounded_slide_is_tiled_within_its_bounds(tmp_path):
    slide = blank_slide(tmp_path, 1000, 800, mpp=0.5)
    slide.bounds = (130, 70, 400, 300)
    tiles = tile_grid(slide, everywhere(slide), TilingSettings(tile_size=100, mpp=0.5))
    assert len(tiles.coords) == 12
    assert tiles.coords.min(axis=0).tolist() == [130, 70]
    assert tiles.coords.max(axis=0).tolist() == [430, 270]
    assert tiles.slide_dimensions == (1000, 800)


def test_finer_than_level_0_needs_a_word(tmp_path):
    slide = blank_slide(tmp_path, 400, 300, mpp=0.5)
    for target in ({"mpp": 0.25}, {"magnification": 40}):
        with pytest.raises(UserError, match=r"'blank' has 0.5 µm per pixel \(20x\), coarser.*tiling.upsample=true"):
            tile_grid(slide, everywhere(slide), TilingSettings(tile_size=100, **target))
        tiles = tile_grid(slide, everywhere(slide), TilingSettings(tile_size=100, upsample=True, **target))
        assert (tiles.tile_size_level0, tiles.mpp) == (50, 0.25)
        assert slide.read(0, 0, (100, 100), tiles.mpp).shape == (100, 100, 3)


def test_no_tissue_gives_no_tiles(tmp_path):
    slide = blank_slide(tmp_path, 400, 300, mpp=0.5)
    empty = everywhere(slide)
    empty.mask[:] = False
    tiles = tile_grid(slide, empty, TilingSettings(tile_size=100, mpp=0.5, min_tissue=0))
    assert tiles.coords.shape == (0, 2)
    assert tiles.coords.dtype == np.int64
    assert tiles.tissue.shape == (0,)


def test_a_slide_smaller_than_a_tile_is_one_tile_or_says_why_not(tmp_path):
    """400 x 300 pixels of tissue in a tile of 500 are 48 % of it; in a tile of 1000 they are 12 %."""
    slide = blank_slide(tmp_path, 400, 300, mpp=0.5)
    tiles = tile_grid(slide, everywhere(slide), TilingSettings(tile_size=500, mpp=0.5))
    assert tiles.coords.tolist() == [[0, 0]]
    assert tiles.tissue.tolist() == pytest.approx([0.48])
    assert (slide.read(0, 0, (500, 500), tiles.mpp)[300:] == 255).all()
    with pytest.warns(UserWarning, match=r"'blank': no tile has tiling.min_tissue=0.25, at most 0.12"):
        tiles = tile_grid(slide, everywhere(slide), TilingSettings(tile_size=1000, mpp=0.5))
    assert tiles.coords.shape == (0, 2)
    small = "smaller than a tile (400 x 300 level-0 pixels, a tile has 1000 x 1000)"
    assert tiles.reason == f"no tile has tiling.min_tissue=0.25, at most 0.12; {small}"


def test_the_mask_beyond_the_slide_is_no_tissue(tmp_path):
    """Mask pixels of 16: the seventh column of a slide of 100 reaches 12 pixels beyond it."""
    slide = blank_slide(tmp_path, 100, 100, mpp=0.5)
    tissue = TissueMask(np.ones((7, 7), dtype=bool), np.empty((0, 0, 3), np.uint8), (0, 0), 16.0)
    tiles = tile_grid(slide, tissue, TilingSettings(tile_size=80, mpp=0.5, min_tissue=0))
    assert tiles.coords.tolist() == [[0, 0], [80, 0], [0, 80], [80, 80]]
    assert tiles.tissue.tolist() == pytest.approx([1, 0.25, 0.25, 0.0625])


def test_contradicting_objective_is_a_warning(tmp_path):
    """As Camelyon16's second scanner."""
    slide = blank_slide(tmp_path, 400, 300, mpp=0.23)
    slide.magnification = 20.0
    with pytest.warns(UserWarning, match=r"says 20x but 0.23 µm per pixel, which is 40x"):
        tiles = tile_grid(slide, everywhere(slide), TilingSettings(tile_size=100, magnification=20))
    assert tiles.tile_size_level0 == 200


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "give one of them"),
        ({"mpp": 0.5, "magnification": 20}, "give one of them"),
        ({"mpp": -1}, "tiling.mpp=-1: must be above 0"),
        ({"mpp": 0.5, "tile_size": 0}, "tile_size=0: must be above 0"),
        ({"mpp": 0.5, "tile_size": 25.5}, "tile_size=25.5 must be a whole number"),
        ({"mpp": 0.5, "overlap": 0.5}, "overlap=0.5 must be a whole number"),
        ({"mpp": 0.5, "overlap": 256}, "below tile_size=256"),
        ({"mpp": 0.5, "min_tissue": 25}, "tiling.min_tissue=25: a share"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(UserError, match=message):
        TilingSettings(**settings)


def test_real_slide_has_tridents_grid_and_attributes(shared_data):
    """TRIDENT lays 9 x 12 tiles of 256 over 2220 x 2967 pixels; ours are those of them that hold tissue."""
    slide = open_slide(shared_data("slides") / "CMU-1-Small-Region.svs")
    settings = TilingSettings(tile_size=256, magnification=20, min_tissue=0)
    assert len(tile_grid(slide, everywhere(slide), settings).coords) == 9 * 12
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tiles = tile_grid(slide, find_tissue(slide), settings)
    assert 45 <= len(tiles.coords) <= 65
    assert (tiles.coords % 256 == 0).all()
    assert tiles.attributes("/job/20x") == {
        "patch_size": 256,
        "patch_size_level0": 256,
        "level0_magnification": 20,
        "target_magnification": 20,
        "overlap": 0,
        "name": "CMU-1-Small-Region",
        "savetodir": "/job/20x",
        "level0_width": 2220,
        "level0_height": 2967,
    }
    # Tiles with much tissue are coloured, the others of the grid are white.
    brightness = [slide.read(x, y, (256, 256), tiles.mpp).mean() for x, y in tiles.coords.tolist()]
    assert np.corrcoef(brightness, tiles.tissue)[0, 1] < -0.8
