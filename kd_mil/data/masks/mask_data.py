"""The data module shared by every set of labelled images with pixel masks."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from kd_mil.core.errors import UserError
from kd_mil.core.machine.shares import WHOLE
from kd_mil.data.bags import Bags
from kd_mil.data.batches import ImageBatch, MaskedBatch
from kd_mil.data.datamodules import Loading, SplitDataModule
from kd_mil.data.samplers import BagSampler, EpochSampler, IndexedView, InstanceSampler, InTurn

ImageSize = int | Sequence[int]


class SegmentationData(SplitDataModule):
    """Images with labels in memory, uint8 (3, H, W); masks come apart, and only where somebody may see them.

    Splits and tables are those of bags: an image is a bag of one instance. A training batch holds no masks, and masks
    of training images are not even read, unless the method says that it trains on them (`train_views`).

    Args:
        loading: `instances_per_step` and `eval_instances_per_step` count images here.
        crop: (height, width) or side in pixels of the random window of each training image; None for the whole image.
        split_file: CSV `bag_id,split` that replaces the data set's own split.
        seed: of what the data set draws.
    """

    kind = "images with masks"

    def __init__(
        self, loading: Loading, crop: ImageSize | None = None, split_file: str | None = None, seed: int = 0
    ) -> None:
        super().__init__(loading, split_file, seed)
        self.crop = None if crop is None else image_size_of("data.crop", crop)
        self._masks: dict[str, Tensor] = {}

    def read_masks(self, positions: Tensor) -> Tensor:
        """Masks (M, H, W) uint8 of the images at `positions` (M,): 0, 1 or `UNKNOWN`."""
        raise NotImplementedError(f"{type(self).__name__} does not say how to read its masks")

    def setup(self, stage: str | None = None) -> None:
        """Load and check images, labels and the masks to evaluate with; safe to call again."""
        super().setup(stage)
        self._check_images(self.bags)
        for part in ("val", "test"):
            self.masks(part)

    def _check_images(self, images: Bags) -> None:
        if len(images.class_names) != 2:
            raise UserError(f"segmentation tells two classes apart, but the data has {len(images.class_names)}")
        height, width = images.instance_shape[1:]
        if self.crop is not None and (self.crop[0] > height or self.crop[1] > width):
            raise UserError(f"data.crop={list(self.crop)} exceeds the images of {height}x{width} pixels")

    def masks(self, part: str) -> Tensor:
        """Masks (M, H, W) uint8 of `train`, `val` or `test`, in the order of the split; read once."""
        if part not in self._masks:
            self._masks[part] = self.read_masks(getattr(self.splits, part))
        return self._masks[part]

    def train_dataloader(self) -> InTurn:
        """The training images, with masks if the method's view is `masked_images`."""
        trainer = self.trainer
        assert trainer is not None
        method = trainer.lightning_module
        sampler = CropSampler(
            self.splits.train,
            self.loading.instances_per_step,
            image=self.bags.instance_shape[1:],
            crop=self.crop,
            seed=getattr(method, "seed", self.seed),
        )
        masked = getattr(method, "train_views", ("images",)) == ("masked_images",)
        fetch = self.masked_training_batch if masked else self.training_batch
        loader = DataLoader(
            IndexedView(self._dealt(fetch)), sampler=sampler, batch_size=None, generator=torch.Generator()
        )
        return InTurn([loader], limit=self.loading.limit_batches, epoch=lambda: trainer.current_epoch)

    def training_batch(self, plan: Tensor, rank: int = 0, ranks: int = 1) -> ImageBatch:
        """Windows of the images of a `CropSampler`'s plan (B, 3), a rank's share of them."""
        batch = self.bags.instance_batch(plan[:, 0], rank, ranks)
        own = (batch.share or WHOLE).own(plan)
        return ImageBatch(self._windows(batch.instances, own), batch.labels, batch.bag_indices, batch.share)

    def masked_training_batch(self, plan: Tensor, rank: int = 0, ranks: int = 1) -> MaskedBatch:
        """The same with masks."""
        train, batch = self.splits.train, self.training_batch(plan, rank, ranks)
        own, order = (batch.share or WHOLE).own(plan), train.argsort()
        rows = torch.searchsorted(train, own[:, 0].contiguous(), sorter=order)
        masks = self._windows(self.masks("train")[order[rows]].to(batch.images.device), own)
        return MaskedBatch(batch.images, batch.labels, batch.indices, masks, batch.share)

    def _windows(self, images: Tensor, plan: Tensor) -> Tensor:
        if self.crop is None:
            return images
        height, width = self.crop
        corners = plan[:, 1:].tolist()
        return torch.stack(
            [image[..., y : y + height, x : x + width] for image, (y, x) in zip(images, corners, strict=True)]
        )

    def val_dataloader(self) -> DataLoader:
        return self._eval_loader("val")

    def test_dataloader(self) -> DataLoader:
        return self._eval_loader("test")

    def _eval_loader(self, part: str) -> DataLoader:
        members, masks = getattr(self.splits, part), self.masks(part)
        rank, world_size = self._shard()
        self.check_processes(world_size)

        def fetch(rows: Tensor) -> MaskedBatch:
            batch = self.bags.instance_batch(members[rows])
            return MaskedBatch(batch.instances, batch.labels, batch.bag_indices, masks[rows].to(batch.labels.device))

        shown = torch.arange(len(members))[rank::world_size]
        sampler = BagSampler(torch.ones_like(members), shown, self.loading.eval_instances_per_step, shuffle=False)
        return DataLoader(IndexedView(fetch), sampler=sampler, batch_size=None, generator=torch.Generator())


class CropSampler(EpochSampler):
    """Random batches of images as rows (position, top, left): which images, and where each is cut."""

    def __init__(
        self, images: Tensor, images_per_step: int, image: Sequence[int], crop: Sequence[int] | None, *, seed: int
    ) -> None:
        super().__init__(seed)
        self.order = InstanceSampler(images, images_per_step, seed=seed)
        self.free = [0, 0] if crop is None else [whole - part for whole, part in zip(image, crop, strict=True)]

    def __iter__(self) -> Iterator[Tensor]:
        self.order.set_epoch(self.epoch)
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + self.epoch) * 1009)
        for positions in self.order:
            corners = [torch.randint(free + 1, (len(positions),), generator=generator) for free in self.free]
            yield torch.stack([positions, *corners], 1)

    def __len__(self) -> int:
        return len(self.order)


def image_size_of(name: str, value: ImageSize) -> tuple[int, int]:
    """(height, width) from a side or a pair.

    Raises:
        UserError: anything else.
    """
    sides = (value, value) if isinstance(value, int) else tuple(value)
    if len(sides) != 2 or min(sides) < 1:
        raise UserError(f"{name}={value}: give a side, or [height, width], in pixels")
    return sides[0], sides[1]


def negative_masks(count: int, size: Sequence[int]) -> Tensor:
    """Masks (count, H, W) of images that hold no positive pixel."""
    return torch.zeros(count, *size, dtype=torch.uint8)
