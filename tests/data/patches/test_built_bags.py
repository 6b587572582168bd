import numpy as np
import pytest
import torch
from PIL import Image

from kd_mil.core.errors import UserError
from kd_mil.data.datamodules import Loading
from kd_mil.data.patches.built_bags import BuiltBags, LabelledInstances, gather, positive_mask
from kd_mil.data.patches.digits_mil import DigitsMIL
from kd_mil.data.patches.image_files import ImageFiles


class Numbers(BuiltBags):
    """Instances 0..N-1 whose class is their last digit; the test part holds numbers from 1000."""

    def read(self):
        def part(start, count):
            numbers = torch.arange(start, start + count)
            return LabelledInstances(numbers[:, None].float(), numbers % 10, tuple("0123456789"))

        return {"train": part(0, 1000), "test": part(1000, 500)}


def build(**settings):
    module = Numbers([9], Loading(), **{"bag_length": 10, "positive_ratio": 0.2} | settings)
    module.setup()
    return module


def test_bags_have_the_counts_labels_and_ratio_asked_for():
    module = build()
    bags, splits = module.bags, module.splits
    assert [len(part) for part in splits[1:]] == [90, 10, 50]
    assert [int(bags.labels[part].sum()) for part in splits[1:]] == [45, 5, 25]
    numbers = bags.instances.flatten().long()
    assert torch.equal(bags.instance_labels, (numbers % 10 == 9).long())
    assert torch.equal(
        torch.zeros(150).long().index_add(0, bags.bag_of_instance, bags.instance_labels.long()), 2 * bags.labels
    )


def test_train_and_test_instances_never_mix():
    module = build()
    numbers = module.bags.instances.flatten()
    assert numbers.unique().numel() == numbers.numel()
    assert (numbers[module.bags.instances_of(module.splits.test)] >= 1000).all()
    kept = torch.cat([module.splits.train, module.splits.val])
    assert (numbers[module.bags.instances_of(kept)] < 1000).all()


def test_limits_keep_bags_balanced():
    module = build(max_train_bags=20, max_test_bags=10, val_fraction=0.2)
    assert [len(part) for part in module.splits[1:]] == [16, 4, 10]
    assert [int(module.bags.labels[part].sum()) for part in module.splits[1:]] == [8, 2, 5]


def test_bag_ids_do_not_depend_on_the_validation_share():
    assert build(val_fraction=0.3).bags.bag_ids == build().bags.bag_ids
    assert build().bags.bag_ids[0] == "train_00000"
    assert build().bags.bag_ids[-1] == "test_00049"


def test_the_seed_changes_the_bags():
    assert torch.equal(build().bags.instances, build().bags.instances)
    assert not torch.equal(build().bags.instances, build(seed=1).bags.instances)


def test_a_part_too_small_is_named():
    with pytest.raises(UserError, match=r"test part: 50 positive and 450 negative instances give"):
        build(bag_length=400, positive_ratio=0.1)


def test_an_unknown_positive_class_gets_a_suggestion():
    part = LabelledInstances(torch.zeros(2, 1), torch.tensor([0, 1]), ("stroma", "tumour"))
    with pytest.raises(UserError, match=r"'Tumor' is not in the data; known: stroma, tumour; did you mean 'tumour'\?"):
        positive_mask(part, ["Tumor"])
    assert positive_mask(part, ["tumour"]).tolist() == [False, True]
    with pytest.raises(UserError, match="positive_classes is empty: name at least one of stroma, tumour"):
        positive_mask(part, [])


@pytest.fixture
def images(tmp_path):
    for number in range(4):
        Image.fromarray(np.full((2, 3, 3), number, dtype=np.uint8)).save(tmp_path / f"{number}.png")
    return ImageFiles([str(tmp_path / f"{number}.png") for number in range(4)], (2, 3))


def test_images_are_read_where_they_fit_and_stay_in_files_elsewhere(images):
    chosen = [(images, torch.tensor([3, 1])), (images, torch.tensor([0]))]
    inside, outside = gather(chosen, resident_bytes=54), gather(chosen, resident_bytes=53)
    assert isinstance(inside, torch.Tensor)
    assert isinstance(outside, ImageFiles)
    assert inside[:, 0, 0, 0].tolist() == [3, 1, 0]
    assert torch.equal(outside[torch.arange(3)], inside)


def test_parts_in_memory_and_in_files_go_together(images):
    pixels = torch.full((2, 3, 2, 3), 9, dtype=torch.uint8)
    together = gather([(pixels, torch.tensor([0])), (images, torch.tensor([2]))], resident_bytes=0)
    assert together[:, 0, 0, 0].tolist() == [9, 2]


def test_parts_of_unequal_size_are_refused(images):
    with pytest.raises(UserError, match=r"set data.image_size=PIXELS"):
        gather([(torch.zeros(1, 3, 4, 4), torch.tensor([0])), (images, torch.tensor([0]))], 100)


def test_digits_need_no_download():
    module = DigitsMIL(Loading(), positive_ratio=0.2)
    module.setup()
    bags = module.bags
    assert bags.instance_shape == (1, 8, 8)
    assert bags.instances.dtype == torch.uint8
    assert int(bags.instances.max()) == 255
    assert [len(part) for part in module.splits[1:]] == [106, 36, 34]
    positive = torch.zeros(len(bags), dtype=torch.long).index_add(0, bags.bag_of_instance, bags.instance_labels.long())
    assert torch.equal(positive, 2 * bags.labels)


def test_an_image_of_a_digit_is_used_once():
    bags = DigitsMIL(Loading()).load().bags
    assert len(bags.instances.flatten(1).unique(dim=0)) == len(bags.instances)


def test_an_unknown_digit_is_refused():
    with pytest.raises(UserError, match="'ten' is not in the data"):
        DigitsMIL(Loading(), positive_classes=["ten"]).setup()
