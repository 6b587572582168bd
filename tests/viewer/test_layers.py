"""What is shown: differences, palettes, and outlines in level-0 pixels."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import shapely

from kd_mil.core.errors import UserError
from kd_mil.prediction.panels import read_panel
from kd_mil.slides.overlays.score_grid import shades
from kd_mil.viewer.frame import Frame
from kd_mil.viewer.layers import ShownLayer, finding_edges, palette, regions, shown_layers, tissue_edges
from kd_mil.viewer.sources import MOST_OPEN, Kept, Run, Slides
from tests.support.predicted import predicted_folder, predicted_slide, slide_file

GRID = np.array([[0.2, 0.5, np.nan], [0.7, 0.9, 0.1]], np.float32)
LAYER = ShownLayer("student", "", GRID, 100, (1000, 50), 0.5)


def test_regions_reach_the_threshold_and_lie_where_the_cells_do():
    [region] = regions(LAYER, 0.5)
    assert region.equals(shapely.union_all([shapely.box(1100, 50, 1200, 150), shapely.box(1000, 150, 1200, 250)]))
    assert regions(LAYER, 0.95) == []
    lines = shapely.linestrings(finding_edges(LAYER).reshape(-1, 2, 2))
    assert shapely.union_all(lines).equals(region.boundary)
    [tissue] = shapely.get_parts(shapely.polygonize(shapely.linestrings(tissue_edges(LAYER).reshape(-1, 2, 2))))
    assert tissue.area == 5 * 100**2


def test_a_difference_has_no_regions(tmp_path):
    predicted_slide(tmp_path, "s")
    panel = read_panel(tmp_path / "panels" / "s.js")
    layers = {layer.name: layer for layer in shown_layers(panel, mask=panel)}
    assert list(layers) == ["teacher", "student", "difference", "mask"]
    beyond = layers["student"].grid - layers["teacher"].grid
    assert np.array_equal(layers["difference"].grid, beyond, equal_nan=True)
    with pytest.raises(UserError, match="is no probability"):
        regions(layers["difference"], 0.5)


def test_palettes_are_those_of_the_page_and_fade_around_zero():
    assert palette(False)[255] == "#" + "".join(f"{part:02x}" for part in shades()[255])
    assert palette(False)[0].endswith("00")
    alphas = [int(color[-2:], 16) for color in palette(True)]
    assert alphas == alphas[::-1]
    assert min(alphas) == alphas[127] < 20
    assert alphas[0] == 204


def test_the_picture_of_a_layer_lies_as_its_cells():
    assert Frame(0.5).image(LAYER) == {"x": 500, "y": -125, "dw": 150, "dh": 100}


def test_slides_are_found_by_number_and_thumbnails_stand_in(tmp_path: Path):
    out = predicted_folder(tmp_path / "out", ["a", "b"], columns=4, rows=3)
    slide_file(tmp_path / "slides" / "a.png", columns=4, rows=3)
    run, slides = Run(out), Slides(str(tmp_path / "slides"))
    assert run.names == ["a", "b"]
    assert run.panel("damaged") is None
    with_slide, without = (slides.background(run.panel(name)) for name in run.names)
    assert with_slide.slide.dimensions == (1024, 768)
    assert without.slide is None
    assert without.fault == ""
    for background in (with_slide, without):
        pyramid = Frame(0.5).pyramid(background)
        side = pyramid["initial_resolution"] * 256
        assert side / 2 ** pyramid["max_zoom"] / 256 == 0.5 * background.pixel  # at the finest zoom, a pixel is a pixel
        assert pyramid["y_origin_offset"] == side


def test_a_slide_that_cannot_be_read_is_shown_by_its_thumbnail(tmp_path):
    run = Run(predicted_folder(tmp_path / "out", ["a"], columns=4, rows=3))
    (tmp_path / "a.svs").write_text("no slide")
    background = Slides(str(tmp_path / "a.svs")).background(run.panel("a"))
    assert background.slide is None
    assert "cannot be opened" in background.fault


def test_a_folder_without_predictions_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"slides\.csv does not exist"):
        Run(tmp_path)
    (tmp_path / "slides.csv").write_text("slide_id,student_decision\n../x,tumour\n")
    with pytest.raises(UserError, match="cannot name a file"):
        Run(tmp_path)
    (tmp_path / "slides.csv").write_text("slide_id,student_decision\nx,tumour\n")
    with pytest.raises(UserError, match="no slide has a panel"):
        Run(tmp_path)


def test_nobody_waits_for_what_another_opens():
    """While `slow` is made, `quick` is there at once, and a second who wants `slow` gets the one that is made."""
    begun, go_on, made = threading.Event(), threading.Event(), []

    def make(name):
        made.append(name)
        if name == "slow":
            begun.set()
            assert go_on.wait(20)
        return name.upper()

    kept = Kept(make)
    with ThreadPoolExecutor(2) as people:
        first, second = people.submit(kept, "slow"), people.submit(kept, "slow")
        assert begun.wait(20)
        assert kept("quick") == "QUICK"
        go_on.set()
        assert first.result(20) == second.result(20) == "SLOW"
    assert made == ["slow", "quick"]


def test_what_could_not_be_made_is_tried_again_and_the_oldest_goes():
    tries = []

    def make(key):
        tries.append(key)
        if len(tries) == 1:
            raise UserError("not yet")
        return key

    kept = Kept(make)
    with pytest.raises(UserError, match="not yet"):
        kept(0)
    assert [kept(key) for key in range(MOST_OPEN + 1)] == list(range(MOST_OPEN + 1))
    assert kept(MOST_OPEN) == MOST_OPEN
    assert len(tries) == MOST_OPEN + 2
    kept(0)
    assert len(tries) == MOST_OPEN + 3
