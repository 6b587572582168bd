"""Tissue as others outlined it: GeoJSON and masks as QuPath, TRIDENT, HEST and GrandQC write them."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from kd_mil.core.errors import UserError
from kd_mil.slides.extraction.extraction import Extraction
from kd_mil.slides.extraction.pictures import Pictures
from kd_mil.slides.extraction.store import read_slide
from kd_mil.slides.slide_list import list_slides
from kd_mil.slides.tiles.cutting import Cutting
from kd_mil.slides.tiles.outlines import OutlineSettings, outlined_tissue
from kd_mil.slides.tiles.tiling import TilingSettings

TILING = TilingSettings(tile_size=32, mpp=1.0, min_tissue=0.5)


def box(left, top, right, bottom):
    return [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]


def feature(rings, name=None, **more):
    properties = more | ({"classification": {"name": name, "color": [1, 2, 3]}} if name else {})
    return {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": rings}, "properties": properties}


@pytest.fixture
def entry(tmp_path):
    """256 x 192 pixels of 1 µm, pink all over: what is tiled says the outline alone."""
    Image.new("RGB", (256, 192), (210, 130, 180)).save(tmp_path / "a.png")
    (tmp_path / "outlines").mkdir()
    return list_slides(tmp_path / "a.png")[0]


def settings(entry, **more):
    return OutlineSettings(str(entry.path.parent / "outlines"), mpp=1.0, **more)


def write(entry, name, content):
    path = entry.path.parent / "outlines" / name
    if isinstance(content, np.ndarray):
        Image.fromarray(content).save(path)
    else:
        path.write_text(json.dumps({"type": "FeatureCollection", "features": content}))


def corners(entry, chosen):
    cutting = Cutting(TILING, chosen, mpp=1.0)
    return {tuple(corner) for corner in cutting.cut(cutting.open(entry), entry).coords.tolist()}


def test_areas_with_holes_and_islands_become_the_mask_exactly(entry):
    lake = [box(32, 32, 224, 160), box(64, 64, 192, 128)]
    write(entry, "a.geojson", [feature([box(96, 80, 128, 112)]), feature(lake)])
    mask = outlined_tissue(Cutting(TILING, mpp=1.0).open(entry), entry, settings(entry)).mask
    expected = np.zeros((192, 256), bool)
    expected[32:160, 32:224], expected[64:128, 64:192], expected[80:112, 96:128] = True, False, True
    differ = mask != expected
    assert differ.sum() <= 2 * (192 + 128 + 32 + 32) * 2, "rims alone"
    assert not differ[34:62, 34:222].any()
    assert not differ[66:78, 66:190].any()


def test_classes_are_chosen_and_cut_out(entry):
    left, right, pen = box(0, 0, 128, 192), box(128, 0, 256, 192), box(0, 0, 64, 192)
    write(entry, "a.geojson", [feature([left], "Tissue"), feature([right], "Region*"), feature([pen], "Pen")])
    every = {(x, y) for x in range(0, 256, 32) for y in range(0, 192, 32)}
    assert corners(entry, settings(entry)) == every
    assert corners(entry, settings(entry, classes=["tissue"])) == {(x, y) for x, y in every if x < 128}
    assert corners(entry, settings(entry, exclude=["pen"])) == {(x, y) for x, y in every if x >= 64}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.geojson", [feature([box(64, 0, 256, 192)], tissue_id=0)]),  # TRIDENT
        ("a_contours.geojson", [feature([box(64, 0, 256, 192)], tissue_id=0)]),  # HEST
        ("a.png", np.pad(np.full((48, 48), 255, np.uint8), ((0, 0), (16, 0)))),  # black and white, reduced
        ("a_mask.png", np.pad(np.ones((192, 192), np.uint8), ((0, 0), (64, 0)))),
    ],
)
def test_files_of_other_tools_are_found_by_their_names(entry, name, content):
    write(entry, name, content)
    assert corners(entry, settings(entry)) == {(x, y) for x in range(64, 256, 32) for y in range(0, 192, 32)}


def test_masks_of_grandqc_are_told_by_their_values(entry):
    """`tis_det_mask`: 0 tissue, 1 background. `mask_qc`: 1 clean tissue, 2 to 6 artefacts, 7 background."""
    found = np.ones((48, 64), np.uint8)
    found[:, 32:] = 0
    write(entry, "a.png_MASK.png", found)
    right = {(x, y) for x in range(128, 256, 32) for y in range(0, 192, 32)}
    assert corners(entry, settings(entry, mask_values=[0])) == right
    quality = np.full((48, 64), 7, np.uint8)
    quality[:, 32:], quality[:24, 32:] = 1, 4
    (entry.path.parent / "outlines" / "a.png_MASK.png").unlink()
    write(entry, "a.png_mask.png", quality)
    assert corners(entry, settings(entry, mask_values=[1])) == {(x, y) for x, y in right if y >= 96}


def test_mistakes_are_one_line(entry):
    with pytest.raises(UserError, match=r"tissue\.folder= is not set"):
        OutlineSettings()
    with pytest.raises(UserError, match="slide 'a' has no outlines in"):
        settings(entry).path_of(entry)
    write(entry, "a.geojson", [])
    with pytest.warns(UserWarning, match="outlines no tissue"):
        assert corners(entry, settings(entry)) == set()
    write(entry, "a.png", np.ones((10, 10), np.uint8))
    with pytest.raises(UserError, match=r"several outlines in .*: a\.geojson and a\.png"):
        settings(entry).path_of(entry)


def test_outlines_come_out_of_an_extraction_and_go_into_the_next(entry, tmp_path):
    """The contours of one extraction are edited and steer the next; moved ones are the same, changed ones are not."""
    write(entry, "a.geojson", [feature([box(64, 32, 192, 160)])])
    chosen = settings(entry)
    first = Cutting(TILING, chosen, mpp=1.0)
    Extraction([entry], tmp_path / "one", first, pictures=Pictures(tmp_path / "one", side=None)).run()
    second = Cutting(TILING, OutlineSettings(str(tmp_path / "one" / "contours"), mpp=1.0), mpp=1.0)
    [outcome] = Extraction([entry], tmp_path / "two", second).run()
    assert {tuple(corner) for corner in read_slide(outcome.path).tiles.coords.tolist()} == corners(entry, chosen)
    (tmp_path / "one" / "contours").rename(tmp_path / "moved")
    moved = replace(second, tissue=replace(second.tissue, folder=str(tmp_path / "moved")))
    assert [one.status for one in Extraction([entry], tmp_path / "two", moved).run()] == ["kept"]
    (tmp_path / "moved" / "a.geojson").write_text((entry.path.parent / "outlines" / "a.geojson").read_text() + " ")
    [changed] = Extraction([entry], tmp_path / "two", moved).run()
    assert changed.status == "failed"
    assert "other outlines of the tissue" in changed.message
