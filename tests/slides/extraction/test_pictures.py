"""What an extraction shows of a slide: the right tiles in the right places, and outlines that come back."""

import json

import h5py
import numpy as np
import pytest
import shapely
from PIL import Image

from kd_mil.core.errors import UserError
from kd_mil.slides.extraction.extraction import Extraction
from kd_mil.slides.extraction.pictures import Pictures, tiling_picture
from kd_mil.slides.extraction.redrawing import draw_missing
from kd_mil.slides.overlays.tiling_picture import KEPT, OUTLINE, REJECTED, draw_tiling
from kd_mil.slides.slide_list import list_slides
from kd_mil.slides.tiles.cutting import Cutting
from kd_mil.slides.tiles.tiling import TilingSettings

CUTTING = Cutting(TilingSettings(tile_size=32, mpp=8.0), mpp=1.0)


@pytest.fixture
def entry(tmp_path):
    """2048 pixels of 1 µm; tissue from (512, 512) to (1408, 1536): of tiles of 256, 3.5 columns and 4 rows."""
    pixels = np.full((2048, 2048, 3), 240, np.uint8)
    pixels[512:1536, 512:1408] = np.random.default_rng(0).integers((150, 60, 120), (220, 120, 180), (1024, 896, 3))
    pixels[512:1536, 1280:1408] = 240
    pixels[512:1536, 1280:1328] = (180, 90, 150)  # 48 of 256 pixels: less than a quarter
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return list_slides(tmp_path / "a.png")[0]


def test_kept_and_rejected_tiles_are_counted_and_drawn_where_they_lie(entry, tmp_path):
    slide = CUTTING.open(entry)
    tiles, tissue = CUTTING.cut_with_tissue(slide, entry)
    picture = tiling_picture(slide, entry, tissue, tiles, CUTTING.tiling, side=512)
    assert sorted(map(tuple, picture.kept.tolist())) == [
        (x, y) for x in (512, 768, 1024) for y in (512, 768, 1024, 1280)
    ]
    assert sorted(map(tuple, picture.rejected.tolist())) == [(1280, y) for y in (512, 768, 1024, 1280)]
    assert (len(tiles.coords), tiles.rejected) == (12, 4)
    assert tiles.tissue_share == pytest.approx(816 * 1024 / 2048**2, rel=0.03)
    drawn = np.asarray(draw_tiling(picture))
    assert drawn.shape[0] > 512, "words below"
    assert tuple(drawn[200, 192 + 4]) != KEPT
    assert tuple(drawn[140, 192]) == KEPT, "left border of the second column, at a quarter"
    assert tuple(drawn[140, 383]) == REJECTED, "the right border of the last one"
    assert (drawn[100:130, 150] == OUTLINE).all(axis=-1).any(), "the upper rim of the tissue"


def test_small_and_odd_slides_are_drawn_too(tmp_path):
    for number, size in enumerate([(3, 2), (40, 700), (700, 5)]):
        Image.new("RGB", size, (210, 130, 180)).save(tmp_path / f"{number}.png")
    entries = list_slides(tmp_path)
    out = tmp_path / "out"
    outcomes = Extraction(entries, out, CUTTING, pictures=Pictures(out, side=64)).run()
    assert [one.status for one in outcomes] == ["written"] * 3
    assert all(Image.open(out / "qc" / f"{number}.jpg").width >= 640 for number in range(3))


def test_outlines_are_qupaths_and_cover_the_tissue(entry, tmp_path):
    out = tmp_path / "out"
    Extraction([entry], out, CUTTING, pictures=Pictures(out, side=None)).run()
    assert not (out / "qc").exists()
    [feature] = json.loads((out / "contours" / "a.geojson").read_text())["features"]
    assert feature["properties"]["classification"]["name"] == "Tissue"
    area = shapely.from_geojson(json.dumps(feature["geometry"]))
    assert area.is_valid
    assert area.intersection(shapely.box(512, 512, 1328, 1536)).area == pytest.approx(816 * 1024, rel=0.03)
    assert area.area == pytest.approx(816 * 1024, rel=0.03)
    assert feature["properties"]["measurements"]["area mm2"] == pytest.approx(0.8356, rel=0.03)


def test_what_is_missing_of_a_finished_slide_is_drawn_once(entry, tmp_path, monkeypatch):
    """As in a folder of an earlier version; outlines that somebody edited stay."""
    out = tmp_path / "out"
    first = Extraction([entry], out, CUTTING, pictures=Pictures(out))
    first.run()
    draw_missing(first)
    expected = {path: path.read_bytes() for path in (out / "qc" / "a.jpg", out / "contours" / "a.geojson")}
    (out / "qc" / "a.jpg").unlink()
    (out / "contours" / "a.geojson").write_text("edited")
    again = Extraction([entry], out, CUTTING, pictures=Pictures(out))
    assert [one.status for one in again.run()] == ["kept"]
    draw_missing(again)
    assert (out / "qc" / "a.jpg").read_bytes() == expected[out / "qc" / "a.jpg"]
    assert (out / "contours" / "a.geojson").read_text() == "edited"
    assert not (out / ".claims").exists()
    monkeypatch.setattr(Cutting, "open", None)  # a slide cannot be opened any more
    draw_missing(again)


def test_what_an_earlier_version_did_not_count_is_counted_for_the_page(entry, tmp_path):
    out = tmp_path / "out"
    [outcome] = Extraction([entry], out, CUTTING).run()
    with h5py.File(outcome.path, "a") as file:
        for name in ("rejected", "tissue_share"):
            file.attrs[f"kd_mil_{name}"] = "null"
    for _ in range(2):
        again = Extraction([entry], out, CUTTING, pictures=Pictures(out))
        again.run()
        draw_missing(again)
        counted = again.outcomes["a"]
        assert (counted.rejected, counted.tissue) == (outcome.rejected, outcome.tissue)


def test_a_finished_slide_that_cannot_be_drawn_is_a_warning(entry, tmp_path):
    out = tmp_path / "out"
    Extraction([entry], out, CUTTING).run()
    again = Extraction([entry], out, CUTTING, pictures=Pictures(out))
    again.run()
    entry.path.unlink()
    with pytest.warns(UserWarning, match=r"1 slides finished earlier could not be drawn, first a: .*a\.png"):
        draw_missing(again)


def test_a_side_too_small_for_a_picture_is_refused(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(UserError, match="picture_side=8: must be at least 64"):
        Pictures(out, side=8)
