"""Images with labels and masks apart: folders, tables, GlaS by patient, Camelyon tiles, crops."""

import numpy as np
import pytest
import torch
from PIL import Image

from kd_mil.core.errors import UserError
from kd_mil.data.batches import UNKNOWN, ImageBatch, MaskedBatch
from kd_mil.data.datamodules import Loading
from kd_mil.data.masks.digestpath2019 import DigestPath2019
from kd_mil.data.masks.glas import Glas
from kd_mil.data.masks.image_files import read_mask
from kd_mil.data.masks.mask_data import CropSampler
from kd_mil.data.masks.patch_masks import PatchMasks
from kd_mil.data.masks.synthetic_glands import SyntheticGlands, draw_tissue
from tests.support.tiny_images import tiny_glands

SMALL = Loading(instances_per_step=4, eval_instances_per_step=3)


def paint(path, value=0, size=(24, 16), corner=None):
    """An image of one grey value; with `corner`, a mask whose upper left quarter is white."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((size[1], size[0]), value, np.uint8)
    if corner is not None:
        pixels[: size[1] // 2, : size[0] // 2] = corner
    image = Image.fromarray(pixels)
    (image if corner is not None else image.convert("RGB")).save(path)


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
    paint(folders / "val" / "gt" / "p0.png", 7)
    with pytest.raises(UserError, match="3 channels"):
        PatchMasks(SMALL, root=str(folders), image_size=8).setup()
    with pytest.raises(UserError, match="exceeds the images"):
        PatchMasks(SMALL, root=str(folders), image_size=8, crop=9).setup()
    with pytest.raises(UserError, match="image_size"):
        PatchMasks(SMALL, root=str(folders), image_size=(8, 8, 3))


def test_masks_are_reduced_by_area(tmp_path):
    """Three of four pixels white: positive; one of four: not; values below 128 next to 255 are background."""
    pixels = np.array([[255, 255, 255, 0], [255, 0, 0, 0], [0, 0, 255, 120], [0, 0, 255, 255]], np.uint8)
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    assert read_mask(tmp_path / "mask.png", (2, 2)).tolist() == [[1, 0], [0, 1]]
    Image.fromarray((pixels > 127).astype(np.uint8) * 3).save(tmp_path / "small.png")
    assert read_mask(tmp_path / "small.png", (2, 2)).tolist() == [[1, 0], [0, 1]], "small values count from 1 on"
    assert not read_mask(tmp_path / "small.png", (2, 2), positive=[2]).any()


class Trainer:
    """What a data module asks of a trainer."""

    global_rank, world_size, current_epoch = 0, 1, 0

    def __init__(self, **method):
        self.lightning_module = type("Method", (), {"seed": 3, **method})()
        self.strategy = type("Strategy", (), {"root_device": torch.device("cpu")})()


def test_only_a_method_that_asks_gets_masks_to_train_on():
    data = tiny_glands(crop=16)
    data.trainer = Trainer()
    data.setup()
    assert all(isinstance(batch, ImageBatch) for batch in data.train_dataloader())
    data.trainer = Trainer(train_views=("masked_images",))
    batches = list(data.train_dataloader())
    assert all(isinstance(batch, MaskedBatch) for batch in batches)
    seen = torch.cat([batch.indices for batch in batches])
    assert sorted(seen.tolist()) == data.splits.train.tolist()


def test_crops_take_the_same_window_of_image_and_mask():
    data = tiny_glands(crop=(16, 24))
    data.trainer = Trainer(train_views=("masked_images",))
    data.setup()
    images = data.bags.instances
    for batch in data.train_dataloader():
        assert batch.images.shape[1:] == (3, 16, 24)
        for image, mask, index in zip(batch.images, batch.masks, batch.indices.tolist(), strict=True):
            places = [
                (y, x)
                for y in range(17)
                for x in range(9)
                if torch.equal(images[index, :, y : y + 16, x : x + 24], image)
            ]
            [(y, x)] = places
            assert torch.equal(data._truth[index, y : y + 16, x : x + 24], mask)


def test_order_and_windows_follow_seed_and_epoch():
    def plan(epoch, seed=0, rank=0, world_size=1):
        sampler = CropSampler(torch.arange(12), 3, (32, 32), (8, 8), seed=seed, rank=rank, world_size=world_size)
        sampler.set_epoch(epoch)
        return torch.cat(list(sampler))

    assert torch.equal(plan(2), plan(2))
    assert not torch.equal(plan(2), plan(3))
    assert not torch.equal(plan(2), plan(2, seed=1))
    both = torch.cat([plan(2, rank=rank, world_size=2) for rank in range(2)])
    assert sorted(both[:, 0].tolist()) == list(range(12))
    assert 0 <= both[:, 1:].min() <= both[:, 1:].max() <= 24


def test_evaluation_shows_every_image_once_with_its_mask():
    data = tiny_glands()
    data.setup()
    batches = list(data.test_dataloader())
    assert torch.equal(torch.cat([batch.indices for batch in batches]), data.splits.test)
    assert torch.equal(torch.cat([batch.masks for batch in batches]), data._truth[data.splits.test])


def test_drawn_tissue_is_a_function_of_seed_and_number():
    image, mask = draw_tissue(48, True, 0, 5)
    again, _ = draw_tissue(48, True, 0, 5)
    other, _ = draw_tissue(48, True, 1, 5)
    assert (image == again).all()
    assert (image != other).any()
    assert 0.02 < mask.mean() < 0.7
    darkness = 255 - image.mean(0)
    assert darkness[mask == 1].mean() > darkness[mask == 0].mean() + 10
    assert not draw_tissue(48, False, 0, 5)[1].any()


def glas_folder(root):
    lines = ["name,patient ID, grade (GlaS), grade (Sirinukunwattana et al. 2015)"]
    for number in range(16):
        part = ("train", "testA")[number % 2]
        name, patient, malignant = f"{part}_{number}", number // 2, number % 4 >= 2
        lines.append(f"{name},{patient}, {'malignant' if malignant else 'benign'}, whatever")
        paint(root / "images" / f"{name}.jpg", 100)
        paint(root / "masks" / f"{name}.png", corner=255)
    (root / "Grade.csv").write_text("\n".join(lines) + "\n")
    return root


def test_glas_is_split_by_patient_and_benign_glands_are_no_tumour(tmp_path):
    data = Glas(SMALL, str(glas_folder(tmp_path)), "", image_size=(8, 16), num_folds=4)
    data.setup()
    parts = [{data.bags.case_ids[index] for index in part.tolist()} for part in data.splits[1:]]
    assert sum(map(len, parts)) == 8
    assert len(set.union(*parts)) == 8
    labels, masks = data.bags.labels[data.splits.test], data.masks("test")
    assert (masks[labels == 1].flatten(1).sum(1) == 4 * 8).all()
    assert not masks[labels == 0].any()


def test_glas_names_what_is_wrong(tmp_path):
    with pytest.raises(UserError, match=r"GlaS \(K\. Sirinukunwattana"):
        Glas(SMALL, None, str(tmp_path)).setup()
    root = glas_folder(tmp_path / "glas")
    (root / "masks" / "train_4.png").unlink()
    with pytest.raises(UserError, match=r"line 6: no image or no mask 'train_4'"):
        Glas(SMALL, None, str(tmp_path)).setup()


def test_real_glas(shared_data):
    data = Glas(SMALL, str(shared_data("glas")), "", image_size=(32, 48))
    data.setup()
    assert sum(data.counts().values()) == 165
    assert int(data.bags.labels.sum()) == 91
    assert len(set(data.bags.case_ids)) == 16
    table = {
        part: {data.bags.case_ids[i] for i in getattr(data.splits, part).tolist()} for part in ("train", "val", "test")
    }
    assert not table["train"] & table["test"]
    assert not table["train"] & table["val"]
    malignant = data.masks("test")[data.bags.labels[data.splits.test] == 1]
    assert 0.3 < malignant.float().mean() < 0.7


def test_digestpath_pairs_images_with_masks(tmp_path):
    for number in range(8):
        paint(tmp_path / "tissue-train-neg" / f"N{number}_2019-lv1.jpg", 220)
        paint(tmp_path / "tissue-train-pos-v1" / f"P{number // 2}_2019-{number}-lv1.jpg", 120)
        paint(tmp_path / "tissue-train-pos-v1" / f"P{number // 2}_2019-{number}-lv1_mask.jpg", corner=255)
    data = DigestPath2019(SMALL, str(tmp_path), "", image_size=(16, 24), num_folds=2, val_fraction=0.25)
    data.setup()
    assert int(data.bags.labels.sum()) == 8
    assert {case for case in data.bags.case_ids if case.startswith("P")} == {"P0", "P1", "P2", "P3"}
    assert int(data.masks("test")[data.bags.labels[data.splits.test] == 1][0].sum()) == pytest.approx(8 * 12, abs=12)
    (tmp_path / "tissue-train-pos-v1" / "P0_2019-0-lv1_mask.jpg").unlink()
    with pytest.raises(UserError, match=r"P0_2019-0-lv1_mask\.jpg does not exist"):
        DigestPath2019(SMALL, str(tmp_path), "").setup()


def test_a_few_training_images_are_of_both_classes():
    data = SyntheticGlands(Loading(limit_bags=3), image_size=32, train_images=8, val_images=4, test_images=4)
    data.setup()
    assert data.bags.labels[data.splits.train].tolist() == [0, 1, 0]
    assert len(data.masks("train")) == 3
    assert data.counts() == {"train": 3, "val": 4, "test": 4}
