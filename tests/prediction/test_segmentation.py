"""Maps of slides and their outlines with a stand-in for the network: where they lie, and what they are called."""

import json
from dataclasses import replace

import numpy as np
import pytest
import shapely
from PIL import Image
from shapely.geometry import shape

from kd_mil.core.errors import UserError
from kd_mil.prediction.loading import Network
from kd_mil.prediction.outputs import OutputSettings
from kd_mil.prediction.segmentation import ProbabilityMap, SlideToSegment, WindowSettings, slide_resolution
from kd_mil.prediction.segmentation_outputs import OutlineSettings, outlines, write_segmentation
from kd_mil.slides.annotations.annotations import AnnotationSettings, read_annotation
from kd_mil.slides.formats.reader import open_slide
from kd_mil.slides.slide_list import SlideEntry
from kd_mil.slides.tiles.tissue import TissueSettings

WINDOWS = WindowSettings(mpp=1.0, overlap=0.0, tissue=TissueSettings(mpp=1.0, min_area_um2=100.0))
EXACT = OutlineSettings(min_pixels=1, tolerance=0.0)


def network(checkpoint="abc", role="student", source=None) -> Network:
    """Sees tumour in whatever is not nearly white."""
    return Network(
        predict=lambda images: (images.float().mean(1) < 230).float(),
        window=(32, 32),
        blur=0.0,
        threshold=0.5,
        source=source or {},
        run="ifkd",
        checkpoint=checkpoint,
        role=role,
    )


def features(folder, name):
    return json.loads((folder / "geojson" / f"{name}.geojson").read_text())["features"]


def test_outlines_do_not_leave_the_slide(tmp_path):
    """A slide of 130 x 70 whose mask pixels of 4 reach beyond it, all tissue and all tumour."""
    Image.new("RGB", (130, 70), (200, 120, 180)).save(tmp_path / "slide.png")
    entry = SlideEntry("slide", tmp_path / "slide.png", "slide", mpp=1.0)
    found = SlideToSegment(entry).segment(network(), WINDOWS)
    assert found.probs.shape == (18, 33)
    row, _ = write_segmentation(found, network(), tmp_path, EXACT)
    [outline] = features(tmp_path, "slide")
    assert shape(outline["geometry"]).bounds == (0, 0, 130, 70)
    area = 130 * 70 - 2 * 2  # three quarters of the last mask pixel lie beyond, in white
    assert shape(outline["geometry"]).area == area
    assert outline["properties"]["measurements"]["area px^2"] == area
    assert (row["pixel"], row["x"], row["y"]) == (4, 0, 0)


def bounded_map() -> ProbabilityMap:
    """A square of 8 mask pixels, at level 0 from (300, 200) to (316, 216)."""
    probs = np.zeros((20, 30), np.float32)
    probs[10:18, 10:18] = 1
    return ProbabilityMap("s", probs, 2.0, (60, 40), (280, 180))


@pytest.mark.parametrize(("in_bounds", "corner"), [(True, (20, 20)), (False, (300, 200))])
def test_positions_count_from_where_qupath_does_and_read_back(tmp_path, recwarn, in_bounds, corner):
    write_segmentation(bounded_map(), network(), tmp_path, replace(EXACT, in_bounds=in_bounds))
    assert shape(features(tmp_path, "s")[0]["geometry"]).bounds == (*corner, corner[0] + 16, corner[1] + 16)
    assert ("in_bounds=true" in str([warning.message for warning in recwarn])) != in_bounds
    Image.new("RGB", (400, 400)).save(tmp_path / "slide.png")
    slide = open_slide(tmp_path / "slide.png", mpp=1.0)
    slide.bounds = (280, 180, 60, 40)
    settings = AnnotationSettings(geojson_in_bounds=in_bounds)
    again = read_annotation(tmp_path / "geojson" / "s.geojson", slide, settings)
    assert shapely.total_bounds(again.polygons).tolist() == [300, 200, 316, 216]


def test_defaults_of_writing_and_reading_agree():
    defaults = {OutputSettings().in_bounds, OutlineSettings().in_bounds, AnnotationSettings().geojson_in_bounds}
    assert defaults == {True}


def test_ids_differ_between_checkpoints_and_roles_and_stay_the_same_otherwise(tmp_path):
    ids = []
    for asked in (network(), network(), network(checkpoint="def"), network(role="teacher")):
        write_segmentation(bounded_map(), asked, tmp_path, EXACT)
        ids.append(features(tmp_path, "s")[0]["id"])
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3


def test_clipping_keeps_what_lies_inside():
    mask = np.ones((3, 4), bool)
    [polygon] = outlines(ProbabilityMap("s", mask.astype(np.float32), 10.0, (35, 30), (5, 5)), mask, EXACT)
    assert polygon.bounds == (5, 5, 40, 35)


def test_the_resolution_of_the_network_is_settled_before_any_slide_is_read():
    assert slide_resolution(network(source={"mpp": 2.0}), WindowSettings()) == 2.0
    with pytest.raises(UserError, match="give mpp=UM_PER_PIXEL"):
        slide_resolution(network(), WindowSettings())
    with pytest.raises(UserError, match="reduce=5 does not divide"):
        slide_resolution(network(), replace(WINDOWS, reduce=5))
