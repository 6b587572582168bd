"""Tiles marked by a model of slides: slide labels and marks decide, outlines judge."""

import numpy as np
import pandas as pd
import pytest

from kd_mil.core.errors import UserError
from kd_mil.data.batches import UNKNOWN
from kd_mil.data.datamodules import Loading
from kd_mil.data.masks.marked_tiles import MarkedTiles
from kd_mil.data.tiles.marks import highest_within, read_marks
from kd_mil.slides.synthetic.build import SyntheticSettings, build_synthetic_slides

SIDE = 64


def test_the_highest_mark_within_a_tile():
    corners, centres = np.array([[0, 0], [100, 0], [500, 500]]), np.array([[10, 10], [90, 20], [150, 99], [150, 101]])
    assert highest_within(corners, 100, centres, np.array([0.2, 0.7, 0.4, 0.9])).tolist() == [0.7, 0.4, 0.0]
    assert highest_within(corners, 100, np.empty((0, 2)), np.empty(0)).tolist() == [0, 0, 0]


@pytest.fixture(scope="module")
def slide_list(tmp_path_factory):
    settings = SyntheticSettings(slides=10, size=768, mpp=1.0, slides_per_case=1)
    return build_synthetic_slides(tmp_path_factory.mktemp("slides"), settings, seed=0)


def marks(folder, slide_ids, marked=((256, 256), (320, 320), (384, 384), (448, 320))):
    """Tables of predictions, with a probability of 1 at the given corners."""
    (folder / "instances").mkdir(exist_ok=True)
    corners = [(x, y) for y in range(0, 768, SIDE) for x in range(0, 768, SIDE)]
    for name in slide_ids:
        table = pd.DataFrame(corners, columns=["x", "y"]).assign(tile_size_level0=SIDE)
        table["student_prob"] = [float(corner in marked) for corner in corners]
        table.to_csv(folder / "instances" / f"{name}.csv", index=False)
    return str(folder)


def tiles(slide_list, folder, cache, **settings):
    chosen = {"classes": ["negative", "positive"], "tile_size": SIDE} | settings
    return MarkedTiles(Loading(), str(slide_list), str(folder), str(cache), **chosen)


def test_marks_label_training_tiles_and_outlines_test_tiles(slide_list, tmp_path):
    slides = pd.read_csv(slide_list).set_index("slide_id")
    data = tiles(slide_list, marks(tmp_path, slides.index), tmp_path)
    data.setup()
    for part in ("train", "val"):
        for index in getattr(data.splits, part).tolist():
            name, x, y = data.bags.bag_ids[index].rsplit("_", 2)
            assert slides.split[name] == part
            positive = slides.label[name] == "positive"
            assert int(data.bags.labels[index]) == positive
            assert (int(x), int(y)) in {(256, 256), (320, 320), (384, 384), (448, 320)} or not positive
    tested, shares = data.splits.test, data.masks("test").float().flatten(1).mean(1)
    assert (shares[data.bags.labels[tested] == 1] > 0.04).all()
    assert not shares[data.bags.labels[tested] == 0].any()


def test_no_outline_reaches_a_training_label(slide_list, tmp_path):
    """Without outlines the training tiles are the same, and nothing is known of the pixels of positive slides."""
    slides = pd.read_csv(slide_list)
    folder = marks(tmp_path, slides.slide_id)
    outlined = tiles(slide_list, folder, tmp_path)
    slides["slide_path"] = [str(slide_list.parent / path) for path in slides.slide_path]
    slides.drop(columns="annotation_path").to_csv(tmp_path / "bare.csv", index=False)
    bare = tiles(tmp_path / "bare.csv", folder, tmp_path)
    for data in (outlined, bare):
        data.setup()
    for part in ("train", "val"):
        ids = [[data.bags.bag_ids[i] for i in getattr(data.splits, part).tolist()] for data in (outlined, bare)]
        labels = [data.bags.labels[getattr(data.splits, part)].tolist() for data in (outlined, bare)]
        assert ids[0] == ids[1]
        assert labels[0] == labels[1]
    positive = bare.bags.labels[bare.splits.val] == 1
    assert (bare.masks("val")[positive] == UNKNOWN).all()
    assert not bare.masks("val")[~positive].any()


def test_mistakes_are_named(slide_list, tmp_path):
    names = pd.read_csv(slide_list).slide_id
    with pytest.raises(UserError, match=r"give both, or let kd_mil\.chain"):
        MarkedTiles(Loading(), str(slide_list), None, str(tmp_path)).setup()
    with pytest.raises(UserError, match=r"no predictions for slide .*run kd_mil\.predict"):
        tiles(slide_list, tmp_path, tmp_path).setup()
    folder = marks(tmp_path, names)
    with pytest.raises(UserError, match="no column 'nobody_prob'"):
        tiles(slide_list, folder, tmp_path, role="nobody").setup()
    bare = pd.read_csv(slide_list).drop(columns=["split", "annotation_path"])
    bare["slide_path"] = [str(slide_list.parent / path) for path in bare.slide_path]
    bare.to_csv(tmp_path / "bare.csv", index=False)
    with pytest.raises(UserError, match="has no part: give a column `split`"):
        tiles(tmp_path / "bare.csv", folder, tmp_path).setup()
    (tmp_path / "instances" / "odd.parquet").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"odd\.parquet: not readable"):
        read_marks(tmp_path / "instances" / "odd.parquet", "student")


def test_tiles_kept_are_those_of_the_role_that_marked_them(slide_list, tmp_path):
    """One table holds the probabilities of all roles."""
    folder = marks(tmp_path, slides := pd.read_csv(slide_list).slide_id)
    for name in slides:
        path = tmp_path / "instances" / f"{name}.csv"
        table = pd.read_csv(path)
        table["teacher_prob"] = ((table.x == 192) & (table.y == 256)).astype(float)
        table.to_csv(path, index=False)
    found = {}
    for role in ("student", "teacher"):
        data = tiles(slide_list, folder, tmp_path, role=role)
        data.setup()
        train = data.splits.train[data.bags.labels[data.splits.train] == 1].tolist()
        found[role] = {data.bags.bag_ids[index].rsplit("_", 2)[1] for index in train}
    assert found["teacher"] == {"192"}
    assert "192" not in found["student"]


def test_marks_of_a_model_with_the_classes_in_another_order_are_refused(slide_list, tmp_path):
    folder = marks(tmp_path, pd.read_csv(slide_list).slide_id)
    (tmp_path / "model.json").write_text('{"class_names": ["positive", "negative"]}')
    with pytest.raises(UserError, match=r"its probabilities are those of 'negative': give both the same order"):
        tiles(slide_list, folder, tmp_path).setup()


def test_a_split_file_brings_no_label_by_outlines_into_training(slide_list, tmp_path):
    slides = pd.read_csv(slide_list)
    folder = marks(tmp_path, slides.slide_id)
    data = tiles(slide_list, folder, tmp_path)
    data.setup()
    data.write_split_file(tmp_path / "same.csv")
    tiles(slide_list, folder, tmp_path, split_file=str(tmp_path / "same.csv")).setup()
    table = pd.read_csv(tmp_path / "same.csv")
    table["split"] = table.split.map({"train": "test", "val": "val", "test": "train"})
    table.to_csv(tmp_path / "other.csv", index=False)
    with pytest.raises(UserError, match=r"data\.split_file puts '.*' into train, whose label is that of outlines"):
        tiles(slide_list, folder, tmp_path, split_file=str(tmp_path / "other.csv")).setup()
