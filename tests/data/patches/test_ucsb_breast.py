import numpy as np
import pytest
import torch
from PIL import Image

from kd_mil.core.errors import UserError
from kd_mil.data.datamodules import Loading
from kd_mil.data.patches.ucsb_breast import UcsbBreast, grouped_folds


def load(root, **settings):
    module = UcsbBreast(str(root), "", Loading(), **settings)
    module.setup()
    return module


@pytest.fixture
def images(tmp_path):
    """Eight arrays of two images, 30x20 pixels of grey 90 with a white left third; malignant ones have a red dot."""
    for array in range(8):
        for kind in ("benign", "malignant"):
            pixels = np.full((20, 30, 3), 90, dtype=np.uint8)
            pixels[:, :10] = 255
            if kind == "malignant":
                pixels[17, 12] = (200, 0, 0)
            Image.fromarray(pixels).save(tmp_path / f"ytma{array}_010203_{kind}1_ccd.png")
    return tmp_path


def test_white_patches_are_dropped_and_the_rest_is_a_grid(images):
    bags = load(images, patch_size=5).bags
    assert bags.sizes.tolist() == [16] * 16
    first = bags.batch(torch.tensor([0]))
    assert first.coords.tolist() == [[x, y] for y in (0, 5, 10, 15) for x in (10, 15, 20, 25)]
    assert (first.instances == 90).all()
    # with patches of 8 the one at x = 8 is a quarter white
    assert load(images, patch_size=8).bags.sizes.tolist() == [4] * 16
    assert load(images, patch_size=8, white_share=0.25).bags.sizes.tolist() == [2] * 16


def test_labels_and_arrays_are_those_of_the_names(images):
    bags = load(images, patch_size=5).bags
    assert bags.labels.tolist() == [0, 1] * 8
    assert bags.case_ids[:3] == ["ytma0_010203", "ytma0_010203", "ytma1_010203"]
    assert (bags.instance_labels == -1).all()  # nobody published which patches are malignant


@pytest.mark.parametrize("fold", range(4))
def test_arrays_stay_whole(images, fold):
    module = load(images, patch_size=5, num_folds=4, fold=fold)
    bags = module.bags
    parts = [{bags.case_ids[bag] for bag in part.tolist()} for part in module.splits[1:]]
    assert [len(part) for part in parts] == [5, 1, 2]
    assert not parts[0] & parts[1] | parts[0] & parts[2] | parts[1] & parts[2]
    assert load(images, patch_size=5, num_folds=4, fold=fold, group_by="image").bags.case_ids is None


def test_masks_label_the_patches_they_touch(images, tmp_path):
    masks = tmp_path / "masks"
    masks.mkdir()
    for array in range(8):
        mask = np.zeros((20, 30), dtype=np.uint8)
        mask[17, 12] = 1
        Image.fromarray(mask).save(masks / f"ytma{array}_010203_malignant1_ccd.png")
    bags = load(images, patch_size=5, masks=str(masks)).bags
    assert bags.batch(torch.tensor([0])).instance_labels.sum() == 0
    assert bags.batch(torch.tensor([1])).instance_labels.nonzero().flatten().tolist() == [12]
    Image.fromarray(mask[:10]).save(masks / "ytma3_010203_malignant1_ccd.png")
    with pytest.raises(UserError, match="a mask of 30x10 pixels for an image of 30x20"):
        load(images, patch_size=5, masks=str(masks))
    (masks / "ytma3_010203_malignant1_ccd.png").unlink()
    with pytest.raises(UserError, match=r"no mask ytma3_010203_malignant1_ccd"):
        load(images, patch_size=5, masks=str(masks))


def test_normalised_images_keep_the_patches_that_were_not_white(images):
    plain, normalised = (load(images, patch_size=5, stain_normalisation=one).bags for one in ("none", "reinhard"))
    assert torch.equal(plain.coords, normalised.coords)
    assert not torch.equal(plain.batch(torch.tensor([0])).instances, normalised.batch(torch.tensor([0])).instances)


def test_mistakes_are_named(images, tmp_path):
    with pytest.raises(UserError, match=r"data.patch_size=0: must be at least 1"):
        UcsbBreast(None, "", Loading(), patch_size=0)
    with pytest.raises(UserError, match=r"data.patch_size=21 exceeds ytma0_010203_benign1_ccd of 30x20 pixels"):
        load(images, patch_size=21)
    with pytest.raises(UserError, match="fold=9"):
        load(images, patch_size=5, fold=9)
    with pytest.raises(UserError, match="9 folds of 8 groups"):
        load(images, patch_size=5, num_folds=9)
    with pytest.raises(UserError, match="all patches are white"):
        load(images, patch_size=5, white_level=50)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match=r"holds no images ytma\*_ccd"):
        load(empty)
    with pytest.raises(UserError, match=r"ucsb-breast .*download the UCSB breast cancer"):
        UcsbBreast(None, str(empty), Loading()).setup()


@pytest.mark.filterwarnings("ignore:The least populated class")
def test_a_part_without_both_labels_is_refused():
    labels, groups = torch.tensor([1, 1, 0, 0, 0, 0]), list("aabcde")
    with pytest.raises(UserError, match="no groups of both labels"):  # a fold that tests all that is malignant
        [grouped_folds(labels, groups, fold, 2, 0.2, 0) for fold in range(2)]
    with pytest.raises(UserError, match="4 folds of these groups: n_splits=4 cannot be greater"):
        grouped_folds(torch.tensor([0, 1] * 4), list("abcdefgh"), 0, 2, 0.125, 0)


@pytest.fixture(scope="module")
def breast(shared_data):
    return load(shared_data("ucsb-breast"))


def test_the_published_counts_are_met(breast):
    bags = breast.bags
    assert [len(bags), int(bags.labels.sum()), len(set(bags.case_ids))] == [58, 26, 10]
    assert bags.instance_shape == (3, 32, 32)
    assert int(bags.sizes.max()) <= 28 * 24
    assert int(bags.sizes.min()) > 200


def test_five_folds_test_every_image_once(breast, shared_data):
    tested, labels, cases = [], breast.bags.labels, breast.bags.case_ids
    for fold in range(5):
        train, val, test = grouped_folds(labels, cases, fold, 5, 0.1, 0)
        assert sorted([*train.tolist(), *val.tolist(), *test.tolist()]) == list(range(58))
        assert len(labels[val].unique()) == 2
        for first, second in ((train, val), (train, test), (val, test)):
            assert not {cases[bag] for bag in first.tolist()} & {cases[bag] for bag in second.tolist()}
        tested += test.tolist()
    assert sorted(tested) == list(range(58))
