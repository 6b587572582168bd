"""Images and masks apart: who sees masks, crops, order, evaluation."""

import torch

from kd_mil.data.batches import ImageBatch, MaskedBatch
from kd_mil.data.datamodules import Loading
from kd_mil.data.masks.mask_data import CropSampler
from kd_mil.data.masks.synthetic_glands import SyntheticGlands
from tests.support.tiny_images import tiny_glands


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
    def plan(epoch, seed=0):
        sampler = CropSampler(torch.arange(12), 3, (32, 32), (8, 8), seed=seed)
        sampler.set_epoch(epoch)
        return torch.cat(list(sampler))

    assert torch.equal(plan(2), plan(2))
    assert not torch.equal(plan(2), plan(3))
    assert not torch.equal(plan(2), plan(2, seed=1))
    assert sorted(plan(2)[:, 0].tolist()) == list(range(12))
    assert 0 <= plan(2)[:, 1:].min() <= plan(2)[:, 1:].max() <= 24


def test_ranks_cut_their_share_of_the_windows():
    """Masks go with their images; ten images in steps of three leave a rank of three without any in the last."""
    steps = []
    for rank, ranks in ((0, 1), (0, 3), (1, 3), (2, 3)):
        data = tiny_glands(train=10, batch=3, crop=(16, 24))
        data.trainer = Trainer(train_views=("masked_images",))
        data.trainer.global_rank, data.trainer.world_size = rank, ranks
        data.setup()
        steps.append(list(data.train_dataloader()))
    for whole, *dealt in zip(*steps, strict=True):
        for name in ("images", "masks"):
            rows = [batch.share.real(getattr(batch, name)) for batch in dealt]
            assert torch.equal(torch.cat(rows), getattr(whole, name))


def test_evaluation_shows_every_image_once_with_its_mask():
    data = tiny_glands()
    data.setup()
    batches = list(data.test_dataloader())
    assert torch.equal(torch.cat([batch.indices for batch in batches]), data.splits.test)
    assert torch.equal(torch.cat([batch.masks for batch in batches]), data._truth[data.splits.test])


def test_a_few_training_images_are_of_both_classes():
    data = SyntheticGlands(Loading(limit_bags=3), image_size=32, train_images=8, val_images=4, test_images=4)
    data.setup()
    assert data.bags.labels[data.splits.train].tolist() == [0, 1, 0]
    assert len(data.masks("train")) == 3
    assert data.counts() == {"train": 3, "val": 4, "test": 4}
