"""Tiles of slides at two resolutions: whose label a tile has, and what is read for it."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from kd_mil.core.errors import UserError
from kd_mil.data.pairs.paired_tiles import PairedTiles, drawn
from kd_mil.slides.formats.reader import open_slide
from kd_mil.slides.synthetic.pyramid_tiff import write_pyramid
from kd_mil.slides.tiles.pieces import Sections, TilePieces, pieces_of, read_piece
from kd_mil.slides.tiles.tissue import TissueSettings

TISSUE = TissueSettings(mpp=4.0, min_area_um2=0)
TUMOUR = {
    "type": "Feature",
    "properties": {"classification": {"name": "Tumor"}},
    "geometry": {"type": "Polygon", "coordinates": [[[0, 0], [128, 0], [128, 80], [0, 80], [0, 0]]]},
}


def slides(root, count=8):
    """Slides of 4 x 4 tiles of tissue of 64 pixels; on every second one the outline covers 2 tiles and a part of 2."""
    rows = []
    for at in range(count):
        pixels = np.random.default_rng(at).integers(0, 40, (256, 256, 3)) + np.array([180, 60, 130])
        Image.fromarray(pixels.astype(np.uint8)).save(root / f"s{at}.png")
        (root / f"s{at}.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [TUMOUR]}))
        outline = f"s{at}.geojson" if at % 2 else ""
        part = ("train", "train", "val", "test")[at // 2 % 4]
        label = "tumour" if at % 2 else "normal"
        rows.append({"slide_path": f"s{at}.png", "label": label, "split": part, "annotation_path": outline, "mpp": 1.0})
    pd.DataFrame(rows).to_csv(root / "slides.csv", index=False)
    return str(root / "slides.csv")


def marks(root, count=8):
    """Probabilities of tiles of 32 pixels: high in one place of slide s1, and of no other."""
    (root / "instances").mkdir()
    x, y = (axis.ravel() for axis in np.meshgrid(np.arange(0, 256, 32), np.arange(0, 256, 32)))
    for at in range(count):
        probs = np.where((x == 224) & (y == 224) & (at % 2 == 1), 0.95, 0.3)
        table = pd.DataFrame({"x": x, "y": y, "tile_size_level0": 32, "student_prob": probs})
        table.to_csv(root / "instances" / f"s{at}.csv", index=False)
    return str(root)


def made(path, **settings):
    data = PairedTiles(path, TISSUE, classes=["normal", "tumour"], tile_size=64, **settings)
    with pytest.warns(UserWarning, match="everything"):
        data.setup()
    return data


def labels_of(data, slide):
    return [label for name, label in zip(data.source.ids, data.source.labels.tolist(), strict=True) if slide in name]


def test_labels_by_outlines_slides_and_predictions(tmp_path):
    """By hand: of 16 tiles 2 are covered and 2 by a quarter; a quarter is positive from .25 on, not from .5."""
    path = slides(tmp_path)
    by_outline = made(path)
    assert labels_of(by_outline, "s0_") == [0] * 16
    assert labels_of(by_outline, "s1_").count(1) == 4
    stricter = made(path, min_tumour=0.5)
    assert (labels_of(stricter, "s1_").count(1), len(labels_of(stricter, "s1_"))) == (2, 14), "two are left out"
    assert labels_of(made(path, labels_from="slides"), "s1_") == [1] * 16
    (tmp_path / "predicted").mkdir()
    marked = made(path, labels_from="predictions", predictions=marks(tmp_path / "predicted"), min_tumour=0.5)
    assert labels_of(marked, "s1_") == [1], "what nobody marked is left out"
    assert "s1_192_192" in marked.source.ids
    assert labels_of(marked, "s7_").count(1) == 2, "test tiles have the labels of outlines"
    assert marked.counts()["train"] == 34
    assert marked.instance_source["tile_size"] == 64


def test_a_split_file_brings_no_label_by_outlines_into_training(tmp_path):
    """s7 tests by the list: whole, its split can be read back, but it cannot train."""
    path = slides(tmp_path)
    (tmp_path / "predicted").mkdir()
    given = {"labels_from": "predictions", "predictions": marks(tmp_path / "predicted")}
    listed = made(path, **given)
    listed.write_split_file(tmp_path / "same.csv")
    assert made(path, split_file=str(tmp_path / "same.csv"), **given).counts() == listed.counts()
    part = {0: "train", 1: "val", 2: "test", 3: "train"}
    rows = [(name, part[int(name[1]) // 2]) for name in listed.source.ids]
    pd.DataFrame(rows, columns=["image_id", "split"]).to_csv(tmp_path / "other.csv", index=False)
    with pytest.raises(UserError, match=r"data\.split_file puts 's7_.*' into train, whose label is that of outlines"):
        made(path, split_file=str(tmp_path / "other.csv"), **given)


def test_without_parts_of_slides_predictions_label_test_tiles_and_that_is_said(tmp_path, capsys):
    path = slides(tmp_path)
    pd.read_csv(path).drop(columns="split").to_csv(path, index=False)
    (tmp_path / "predicted").mkdir()
    data = made(path, labels_from="predictions", predictions=marks(tmp_path / "predicted"))
    assert labels_of(data, "s7_") == [1]
    assert "test tiles have labels by predictions, too, and none by outlines" in capsys.readouterr().out


def test_predictions_of_a_model_with_the_classes_in_another_order_are_refused(tmp_path):
    (tmp_path / "predicted").mkdir()
    given = {"labels_from": "predictions", "predictions": marks(tmp_path / "predicted")}
    (tmp_path / "predicted" / "model.json").write_text('{"class_names": ["tumour", "normal"]}')
    with pytest.raises(UserError, match=r"its probabilities are those of 'normal': give both the same order"):
        PairedTiles(slides(tmp_path), TISSUE, tile_size=64, **given).setup()


def test_the_student_is_read_from_the_pyramid(tmp_path):
    data = made(slides(tmp_path), student_downsample=4, tiles_per_slide=3)
    assert data.images["student"][0].shape == (3, 16, 16)
    assert data.counts() == {"train": 18, "val": 9, "test": 9, "auxiliary": 0}
    original = data.images["teacher"][0].float()
    reduced = torch.nn.functional.avg_pool2d(original, 4)
    assert (data.images["student"][0].float() - reduced).abs().mean() < 3
    again = made(slides(tmp_path), student_downsample=4, tiles_per_slide=3, reading="level0")
    assert again.source.ids == data.source.ids
    assert not torch.equal(again.images["student"][0], data.images["student"][0])


def test_a_damaged_slide_is_left_out(tmp_path):
    path = slides(tmp_path, 16)
    (tmp_path / "s1.png").write_bytes(b"no picture")
    (tmp_path / "s3.geojson").write_text("{")
    assert list(made(path).left_out) == ["s1", "s3"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"labels_from": "predictions"}, "data.predictions=FOLDER"),
        ({"predictions": "x"}, "give both or neither"),
        ({"labels_from": "hearsay"}, "data.labels_from=hearsay"),
        ({"classes": ["normal", "benign", "tumour"]}, "tells tumour from none"),
        ({"classes": ["normal", "tumor"]}, "did you mean 'tumor'"),
        ({"reading": "level1"}, "data.reading=level1"),
    ],
)
def test_mistakes(settings, message, tmp_path):
    path = slides(tmp_path)
    with pytest.raises(UserError, match=message):
        PairedTiles(path, TISSUE, tile_size=64, **settings).setup()


def test_tiles_are_drawn_by_label():
    labels = np.array([1, 0, 0, -2, 0, 1, -1])
    assert drawn(labels, None, (0, 1)) == [0, 1, 2, 4, 5, 6]
    some = drawn(labels, 1, (0, 1))
    assert sorted(labels[some]) == [-1, 0, 1]
    assert some == drawn(labels, 1, (0, 1))


def test_a_piece_comes_from_the_nearest_level_and_looks_as_from_level_0(tmp_path):
    y, x = np.mgrid[:1024, :1024] / 40
    waves = (127 + 60 * np.stack([np.sin(x), np.cos(y), np.sin(x + y)], 2)).astype(np.uint8)
    write_pyramid(tmp_path / "slide.tif", iter([waves]), (1024, 1024), 0.5, tile_size=128, quality=95)
    slide = open_slide(tmp_path / "slide.tif")
    levels = []
    read_level = slide._read_level
    slide._read_level = lambda handle, level, *rest: levels.append(level) or read_level(handle, level, *rest)
    box = (128, 256, 512, 384)
    near, far = (np.asarray(read_piece(slide, box, 2.0, reading)).astype(int) for reading in ("pyramid", "level0"))
    assert levels == [2, 0]
    assert near.shape == far.shape == (96, 128, 3)
    assert np.abs(near - far).mean() < 4


@pytest.mark.parametrize("pieces", [Sections(2.0, TISSUE, 10.0), TilePieces(0.5, TISSUE, 128, 0.1)])
def test_settings_come_back_from_a_checkpoint(pieces):
    assert pieces_of(json.loads(json.dumps(pieces.facts()))) == pieces
    assert pieces_of({"kind": "image_files"}) is None
    with pytest.raises(UserError, match="does not say how to find its pieces"):
        pieces_of(pieces.facts() | {"tissue": {"colour": "pink"}})
