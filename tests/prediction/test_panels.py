"""Panels: what is written is read back; areas and cells by hand; the highest and lowest tiles."""

import numpy as np
import pytest
import torch

from kd_mil.core.errors import UserError
from kd_mil.models.outputs import Prediction
from kd_mil.prediction.decisions import Model
from kd_mil.prediction.outputs import OutputSettings
from kd_mil.prediction.panel_content import block_means, map_panel, slide_panel
from kd_mil.prediction.panels import packed, panel_path, read_panel, unpacked, write_panel
from kd_mil.prediction.tile_geometry import TileGeometry, blank_picture
from kd_mil.slides.overlays.slide_picture import SlidePicture
from tests.support.predicted import predicted_slide


def test_a_panel_is_read_back(tmp_path):
    predicted_slide(tmp_path, "s")
    panel = read_panel(panel_path(tmp_path, "s"))
    write_panel(tmp_path / "again.js", panel)
    again = read_panel(tmp_path / "again.js")
    assert (panel.name, panel.mpp, panel.tile_size_level0, panel.shown) == ("s", 0.5, 256, "student")
    assert [layer.name for layer in panel.layers] == ["teacher", "student"]
    for one, other in zip(panel.layers, again.layers, strict=True):
        assert np.array_equal(one.grid, other.grid, equal_nan=True)
        assert np.array_equal(one.scores, other.scores)
        assert [tile[:3] for tile in one.highest] == [tile[:3] for tile in other.highest]
    assert panel.extent == (20 * 256, 16 * 256)


@pytest.mark.parametrize("text", ["", "panel({}", "panel(1);\n", 'panel({"name": "s"});\n'])
def test_a_damaged_panel_is_one_line(text, tmp_path):
    (tmp_path / "s.js").write_text(text)
    with pytest.raises(UserError, match=r"s\.js is damaged"):
        read_panel(tmp_path / "s.js")
    with pytest.raises(UserError, match="is missing"):
        read_panel(tmp_path / "t.js")


def test_numbers_survive_their_packing():
    values = np.array([0.0, 0.29, 1.0, np.nan, -0.0], np.float32)
    assert np.array_equal(unpacked(packed(values)), values, equal_nan=True)


class Glass:
    """A slide whose pixels say where they are from."""

    mpp = 0.5

    def __init__(self):
        self.read_at = []

    def read(self, x, y, size, mpp):
        self.read_at.append((x, y, size, mpp))
        return np.full((size[1], size[0], 3), x // 512 % 256, np.uint8)


def panel_of(scores, settings=None, slide=None):
    """Of tiles in one row, the last one half over the one before."""
    x = np.arange(len(scores)) * 512
    x[-1] -= 256
    geometry = TileGeometry(np.stack([x + 1000, 0 * x], 1), 512, extent=(40_000, 1024), mpp=0.5)
    probs = torch.tensor([[0.1, 0.9]], dtype=torch.float64)
    predictions = {"student": Prediction(probs, torch.tensor(scores), torch.tensor(scores))}
    model = Model(["normal", "tumour"], {"student": 0.25}, {"student": 0.6}, "weno", "abc")
    picture = blank_picture(geometry, 256)
    return slide_panel("s", predictions, geometry, picture, slide, model, settings or OutputSettings())


def test_the_panel_of_a_slide_by_hand():
    """Twenty tiles; cells of half a tile, the mean where two tiles lie."""
    slide = Glass()
    panel = panel_of([number / 20 for number in range(20)], slide=slide)
    [layer] = panel.layers
    assert panel.verdict == "student: tumour (tumour 0.90, threshold 0.25)"
    assert (panel.cell, panel.cell_origin, layer.threshold) == (256, (1000, 0), 0.5)
    assert layer.grid.shape == (2, 39)
    assert layer.grid[0, -3:] == pytest.approx([0.9, 0.925, 0.95])
    assert [tile.score for tile in layer.highest] == pytest.approx([n / 20 for n in range(19, 11, -1)])
    assert [tile.score for tile in layer.lowest] == pytest.approx([n / 20 for n in range(8)])
    assert layer.highest[1][:2] == (1000 + 18 * 512, 0)
    assert len(slide.read_at) == 16
    assert slide.read_at[1] == (1000 + 18 * 512, 0, (112, 112), 0.5 * 512 / 112)


def test_few_tiles_are_shown_once_and_thresholds_may_be_those_of_validation():
    panel = panel_of([0.1, 0.9, 0.4], OutputSettings(region_threshold=None))
    [layer] = panel.layers
    assert layer.threshold == 0.6
    assert [tile.score for tile in layer.highest] == pytest.approx([0.9, 0.4, 0.1])
    assert layer.lowest == ()
    assert layer.highest[0].pixels is None


def test_a_large_map_is_averaged_over_blocks():
    values = np.arange(12.0).reshape(3, 4)
    values[0, 0] = np.nan
    assert block_means(values, 2).tolist() == [[(1 + 4 + 5) / 3, 4.5], [8.5, 10.5]]
    probs = np.full((1100, 1000), 0.25, np.float32)
    picture = SlidePicture(np.zeros((11, 10, 3), np.uint8), 100.0, (0, 0), None)
    panel = map_panel("s", "", probs, 0.5, picture, 3.0, (5, 6), None)
    assert panel.cell == 6
    assert panel.layers[0].grid.shape == (550, 500)
