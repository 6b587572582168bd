"""Outlines that people draw: saved, read back as annotations, and never over those of somebody else."""

import json

import numpy as np
import pytest
import shapely

from kd_mil.core.errors import UserError
from kd_mil.slides.annotations.annotations import read_annotation, tumour_fraction
from kd_mil.slides.formats.reader import open_slide
from kd_mil.viewer.drawings import CUT_OUT, Drawings, Drawn, areas
from tests.support.predicted import slide_file

SQUARE = Drawn("Tumor", np.array([[0, 0], [512, 0], [512, 512], [0, 512]]))
HOLE = Drawn(CUT_OUT, np.array([[0, 0], [256, 0], [256, 256], [0, 256]]))


def test_drawn_tumour_is_read_back_as_tumour_fraction(tmp_path):
    slide = open_slide(slide_file(tmp_path / "s.png", 4, 3), 0.5)
    drawings = Drawings(tmp_path / "drawn")
    path = drawings.save("s", [SQUARE, HOLE], (0, 0), 0.5, None)
    coords = np.array([[0, 0], [256, 0], [384, 0], [512, 512]])
    assert tumour_fraction(read_annotation(path, slide), coords, 256).tolist() == [0, 1, 0.5, 0]
    [feature] = json.loads(path.read_text())["features"]
    assert feature["properties"]["classification"]["name"] == "Tumor"
    assert feature["properties"]["measurements"] == {"area mm2": pytest.approx(0.75 * (512 * 0.0005) ** 2, abs=1e-6)}


def test_what_is_loaded_covers_what_was_saved_and_counts_from_the_scanned_area(tmp_path):
    drawings = Drawings(tmp_path)
    inner = Drawn(CUT_OUT, np.array([[100, 100], [200, 100], [200, 200], [100, 200]]))
    stroma = Drawn("Stroma", np.array([[600, 0], [700, 0], [650, 90]]))
    drawings.save("s", [SQUARE, inner, stroma], (50, 20), None, None)
    first = json.loads((tmp_path / "s.geojson").read_text())["features"][0]
    assert min(first["geometry"]["coordinates"][0])[:1] == [-50]
    again = drawings.load("s", (50, 20))
    before, after = areas([SQUARE, inner, stroma]), areas(again)
    assert sorted(after) == ["Stroma", "Tumor"]
    for kind, polygons in before.items():
        assert shapely.union_all(polygons).equals(shapely.union_all(after[kind]))


def test_a_slip_of_the_hand_and_a_crossed_line_are_no_areas_of_their_own():
    bow = Drawn("Tumor", np.array([[0, 0], [100, 100], [100, 0], [0, 100]]))
    slips = [Drawn("Tumor", np.array([[5.0, 5.0]])), Drawn("Tumor", np.array([[9, 9], [9.5, 9], [9, 9.5]]))]
    found = areas([bow, *slips[:1]])["Tumor"]
    assert sum(part.area for part in found) == pytest.approx(5000)
    assert all(part.is_valid for part in found)
    assert areas(slips) == {"Tumor": []}


def test_nobody_loses_what_another_has_saved(tmp_path):
    drawings = Drawings(tmp_path)
    seen = drawings.version("s")
    drawings.save("s", [SQUARE], (0, 0), None, seen)
    content = drawings.path("s").read_bytes()
    with pytest.raises(UserError, match="somebody has saved"):
        drawings.save("s", [HOLE], (0, 0), None, seen)
    assert drawings.path("s").read_bytes() == content
    drawings.save("s", [], (0, 0), None, drawings.version("s"))
    assert drawings.load("s", (0, 0)) == []


@pytest.mark.parametrize("name", ["../s", "a/b", "", "..", "a\0b", "a\nb"])
def test_no_path_outside_the_folder(tmp_path, name):
    with pytest.raises(UserError):
        Drawings(tmp_path / "drawn").save(name, [SQUARE], (0, 0), None, None)
    assert list(tmp_path.iterdir()) == []


def test_a_class_that_a_spreadsheet_would_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="begins as a formula"):
        Drawings(tmp_path).save("s", [Drawn("=1+1", SQUARE.points)], (0, 0), None, None)
