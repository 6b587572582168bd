"""Your own images with masks: folders and tables."""

import numpy as np
import pytest
from PIL import Image

from kd_mil.core.errors import UserError
from kd_mil.data.batches import UNKNOWN
from kd_mil.data.datamodules import Loading
from kd_mil.data.masks.image_files import resized_mask
from kd_mil.data.masks.patch_masks import PatchMasks
from tests.support.tiny_images import paint

SMALL = Loading(instances_per_step=4, eval_instances_per_step=3)


@pytest.fixture
def folders(tmp_path):
    for part, count in (("train", 3), ("val", 2), ("test", 2)):
        for number in range(count):
            paint(tmp_path / part / "neg" / f"n{number}.png", 200)
            paint(tmp_path / part / "pos" / f"p{number}.png", 90 + number)
            if number == 0:
                paint(tmp_path / part / "gt" / f"p{number}.png", corner=255)
    return tmp_path


def test_folders_of_the_released_layout(folders):
    data = PatchMasks(SMALL, root=str(folders), image_size=(8, 12))
    data.setup()
    assert data.counts() == {"train": 6, "val": 4, "test": 4}
    assert data.model_inputs == {"instance_shape": [3, 8, 12], "num_classes": 2}
    ids = [data.bags.bag_ids[index] for index in data.splits.val.tolist()]
    assert ids == ["val/neg/n0", "val/neg/n1", "val/pos/p0", "val/pos/p1"]
    masks = data.masks("val")
    assert not masks[:2].any(), "negative images need no mask file"
    assert masks[2].sum() == 4 * 6
    assert (masks[3] == UNKNOWN).all(), "a positive image nobody has outlined"
    assert "train" not in data._masks


def test_pixels_that_nobody_has_judged_stay_unknown(tmp_path):
    """2x2 pixels become one: unknown where more than half is, else what most of the known pixels say."""
    pixels = np.array([[1, 1, 255, 255, 255, 1, 0, 0], [1, 0, 255, 1, 1, 0, 0, 255]], np.uint8)
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    mask = resized_mask(tmp_path / "mask.png", (1, 4), unknown=[255])
    assert mask.tolist() == [[1, UNKNOWN, 1, 0]]
    whole = resized_mask(tmp_path / "mask.png", (2, 8), positive=[1], unknown=[255])
    assert (whole == np.where(pixels == 255, UNKNOWN, pixels)).all()
    assert resized_mask(tmp_path / "mask.png", (2, 8), positive=[1]).tolist() == (pixels == 1).tolist()


def table(folder, *lines, header="image_path,label,mask_path,case_id,split"):
    path = folder / "images.csv"
    path.write_text("\n".join([header, *lines]) + "\n")
    return str(path)


def test_table_keeps_patients_together(folders):
    lines = [f"train/neg/n{n % 3}.png,neg,,patient{n},,neg{n}" for n in range(8)]
    lines += [f"train/pos/p{n % 3}.png,1,val/gt/p0.png,patient{n},,pos{n}" for n in range(8)]
    path = table(folders, *lines, header="image_path,label,mask_path,case_id,split,image_id")
    tested = []
    for fold in range(2):
        data = PatchMasks(SMALL, manifest=path, image_size=16, fold=fold, num_folds=2, val_fraction=0.25)
        data.setup()
        parts = [{data.bags.case_ids[index] for index in part.tolist()} for part in data.splits[1:]]
        assert not parts[0] & parts[1] | parts[0] & parts[2] | parts[1] & parts[2]
        tested += data.splits.test.tolist()
    assert sorted(tested) == list(range(16))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train/neg/n0.png,maybe,,,", "line 2: label 'maybe'"),
        ("train/neg/n9.png,0,,,", "line 2: .*n9.png does not exist"),
        ("train/pos/p0.png,1,none.png,,", "line 2: .*none.png does not exist"),
        ("train/pos/p0.png,1,,,dev", "line 2: split 'dev'"),
    ],
)
def test_mistakes_in_a_table_are_named(folders, line, message):
    with pytest.raises(UserError, match=message):
        PatchMasks(SMALL, manifest=table(folders, line)).setup()


def test_mistakes_of_sources_are_named(folders, tmp_path):
    with pytest.raises(UserError, match="give one of them"):
        PatchMasks(SMALL).setup()
    with pytest.raises(UserError, match=r"no images in .*train.neg"):
        PatchMasks(SMALL, root=str(tmp_path / "elsewhere")).setup()
    Image.new("RGB", (24, 16), "red").save(folders / "val" / "gt" / "p0.png")
    with pytest.raises(UserError, match="3 channels"):
        PatchMasks(SMALL, root=str(folders), image_size=8).setup()
    with pytest.raises(UserError, match="exceeds the images"):
        PatchMasks(SMALL, root=str(folders), image_size=8, crop=9).setup()
    with pytest.raises(UserError, match="image_size"):
        PatchMasks(SMALL, root=str(folders), image_size=(8, 8, 3))
