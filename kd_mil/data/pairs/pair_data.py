"""Images at a teacher's and a student's resolution, for training, evaluation, and distillation without labels."""

import hashlib
import sys
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from kd_mil.core.checks import at_least, check_cells
from kd_mil.core.errors import one_line
from kd_mil.data.batches import PairBatch
from kd_mil.data.datamodules import classes_in_turn
from kd_mil.data.distillation_data import DistillationData
from kd_mil.data.loading import GIBIBYTE
from kd_mil.data.pairs.division import Division, Unlabelled, divided, limited, members
from kd_mil.data.pairs.pair_loading import ImageSampler, PairView, PhaseLoader
from kd_mil.data.pairs.pair_table import pair_table
from kd_mil.data.pairs.stack import ImageSource, ImageStack, channel_statistics
from kd_mil.data.samplers import IndexedView
from kd_mil.data.splits import AUXILIARY, PARTS

RESOLUTIONS = ("teacher", "student")


class PairedImages(DistillationData):
    """Base of the paired sets; a set says how to `read` its originals.

    Every image exists at the teacher's and at the student's resolution, made from the original by one Lanczos step, or
    read so from a pyramid.
    Images whose part the source does not say are divided by case, stratified by class. An image that cannot be read is
    left out of its part, and listed (`left_out`).

    Args:
        teacher_downsample, student_downsample: side lengths of the original are divided by this much; at least 1.
        images_per_step: images of one update, however many ranks share it; 32 in the authors' code.
        distil_on: images the student is distilled on, without labels: `train`, `auxiliary`, or `both`.
        auxiliary_fraction: share of the training cases whose labels are dropped and which become auxiliary.
        fold: which of `num_folds` folds over cases is tested; None holds out `test_fraction` of the cases.
        num_folds, test_fraction, val_fraction: of the cases.
        split_file: CSV `image_id,split` that replaces the split; `auxiliary` is a fourth word.
        drop_last: leave out the incomplete last step of an epoch, as the authors' code.
        resident_gib: memory for decoded images, student's first; the others are decoded whenever they are needed.
        num_workers: processes that decode those.
        limit_batches: steps of one epoch, to try things out; None for all.
        limit_images: training images, classes in turn, and as many auxiliary ones; None for all.
        auxiliary_limit: auxiliary images, drawn by `seed`: a smaller number is a part of a larger one; None for all.
        seed: of the split, not of the run.

    Raises:
        UserError: a setting out of range.
    """

    kind = "pairs of images"

    def __init__(
        self,
        teacher_downsample: float = 1.0,
        student_downsample: float = 4.0,
        images_per_step: int = 32,
        distil_on: Unlabelled = "train",
        auxiliary_fraction: float = 0.0,
        fold: int | None = None,
        num_folds: int = 5,
        test_fraction: float = 0.2,
        val_fraction: float = 0.15,
        split_file: str | None = None,
        drop_last: bool = False,
        resident_gib: float = 8.0,
        num_workers: int = 0,
        limit_batches: int | None = None,
        limit_images: int | None = None,
        auxiliary_limit: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        at_least("data.teacher_downsample", teacher_downsample, 1)
        at_least("data.student_downsample", student_downsample, 1)
        at_least("data.images_per_step", images_per_step, 1)
        for name, limit in (("limit_batches", limit_batches), ("limit_images", limit_images)):
            if limit is not None:
                at_least(f"data.{name}", limit, 1)
        self.downsamples = {"teacher": float(teacher_downsample), "student": float(student_downsample)}
        self.images_per_step, self.distil_on, self.drop_last = images_per_step, distil_on, drop_last
        self.resident_gib, self.num_workers = resident_gib, num_workers
        self.limit_batches, self.limit_images = limit_batches, limit_images
        folds = fold, num_folds, test_fraction, val_fraction
        self.division = Division(auxiliary_fraction, *folds, split_file, seed, auxiliary_limit)

    def read(self) -> ImageSource:
        """List the originals. The one method a set must write."""
        raise NotImplementedError(f"{type(self).__name__} does not say how to read its images")

    def setup(self, stage: str | None = None) -> None:
        if hasattr(self, "source"):
            return
        source = self.read()
        check_cells("the data", {"image id": source.ids, "case_id": source.cases or (), "class": source.class_names})
        divided(source, self.division, self.distil_on)  # refused before anything is decoded
        self.source = source
        self._unreadable: dict[int, str] = {}
        self.images = self._make_images(source)
        self.left_out = {**source.left_out, **{source.ids[at]: reason for at, reason in self._unreadable.items()}}
        for name, reason in self.left_out.items():
            rank_zero_only(tqdm.write)(f"left out {name}: {reason}", file=sys.stderr)
        parts = divided(source, self.division, self.distil_on, self._unreadable)
        self.positions = {part: members(parts, part) for part in (*PARTS, AUXILIARY)}
        self.positions[AUXILIARY] = limited(self.positions[AUXILIARY], self.division)
        if self.limit_images is not None:
            train = self.positions["train"]
            self.positions["train"] = train[classes_in_turn(source.labels[train], self.limit_images)]
            self.positions[AUXILIARY] = self.positions[AUXILIARY][: self.limit_images]
        self._statistics: dict[str, tuple[Tensor, Tensor]] = {}

    def _make_images(self, source: ImageSource) -> dict[str, ImageStack]:
        stacks = {name: ImageStack(source, self.downsamples[name]) for name in RESOLUTIONS}
        if self.downsamples["teacher"] == self.downsamples["student"]:
            stacks["teacher"] = stacks["student"]
        room = int(self.resident_gib * GIBIBYTE)
        distinct = list({id(stack): stack for stack in reversed(stacks.values())}.values())
        for index in tqdm(range(len(source.ids)), desc="images", unit="image", disable=None, leave=False):
            try:
                original = source.open(index) if source.read_at is None else None
                for stack in distinct:
                    stack.keep(index, original, room - sum(kept.nbytes for kept in distinct))
            except Exception as error:  # whatever it is, the other images are used
                self._unreadable[index] = one_line(error)
        return stacks

    @property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]
        return self.source.class_names

    @property
    def model_inputs(self) -> dict[str, Any]:
        """Classes, resolutions, whether the student sees images without labels, what is held out, and the source."""
        return {
            "class_names": list(self.class_names),
            "teacher_downsample": self.downsamples["teacher"],
            "student_downsample": self.downsamples["student"],
            "auxiliary": self.distil_on != "train",
            "held_out": self.held_out(),
            "source": self.instance_source,
        }

    @property
    def instance_source(self) -> dict[str, Any]:
        """What decides what an image shows: `kind`, and of images cut from slides their resolution and tissue."""
        return {"kind": "image_files"}

    def held_out(self) -> str:
        """Hash of the names of validation and test images: a teacher is of use here if it has not seen those."""
        names = [sorted(self.source.ids[index] for index in self.positions[part].tolist()) for part in ("val", "test")]
        return hashlib.sha256(repr(names).encode()).hexdigest()[:16]

    def channel_statistics(self, resolution: str) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (3,) of the labelled training images at one resolution, computed once."""
        if resolution not in self._statistics:
            images, train = self.images[resolution], self.positions["train"].tolist()
            self._statistics[resolution] = channel_statistics([images[index] for index in train])
        return self._statistics[resolution]

    def input_sizes(self, resolution: str, part: str = "test") -> list[tuple[int, int]]:
        """(height, width) of every image of a part, as a network gets it."""
        return [self.images[resolution].sizes[index] for index in self.positions[part].tolist()]

    def distilled_positions(self) -> Tensor:
        """(M,) positions the student is distilled on."""
        chosen = {"train": ("train",), "auxiliary": (AUXILIARY,), "both": ("train", AUXILIARY)}[self.distil_on]
        return torch.cat([self.positions[part] for part in chosen])

    def fingerprint(self) -> str:
        digest = hashlib.sha256(repr((self.source.ids, self.class_names, self.downsamples)).encode())
        digest.update(self.source.labels.numpy().data)
        for part in (*PARTS, AUXILIARY):
            digest.update(part.encode() + self.positions[part].numpy().tobytes())
        for stack in self.images.values():
            for index in sorted(stack.kept):
                digest.update(stack.kept[index].numpy().data)
        return digest.hexdigest()[:16]

    def counts(self) -> dict[str, int]:
        return {part: len(self.positions[part]) for part in (*PARTS, AUXILIARY)}

    def split_rows(self) -> list[dict[str, str]]:
        return pair_table(self.source, self.positions, self.images)

    def view(self, positions: Tensor, resolutions: tuple[str, ...], labelled: bool = True) -> PairBatch:
        """Images at the given resolutions; without labels, there are none in the batch."""
        return PairView(self.images, self.source.labels, resolutions, labelled)(positions)

    def train_dataloader(self) -> PhaseLoader:
        """What the method's present phase trains on: labelled images of one resolution, or pairs without labels."""
        method = self._method()
        loaders = {
            "teacher": self._loader("train", ("teacher",)),
            "student": self._loader("train", ("student",)),
            "pairs": self._loader(None, RESOLUTIONS, labelled=False),
        }
        trainer = self.trainer
        assert trainer is not None
        return PhaseLoader(loaders, lambda: method.train_view, lambda: trainer.current_epoch, self.limit_batches)

    def val_dataloader(self) -> DataLoader:
        return self._eval_loader("val")

    def test_dataloader(self) -> DataLoader:
        return self._eval_loader("test")

    def _loader(self, part: str | None, resolutions: tuple[str, ...], labelled: bool = True) -> DataLoader:
        positions = self.distilled_positions() if part is None else self.positions[part]
        sampler = ImageSampler(positions, self.images_per_step, self.drop_last, seed=self._method().seed)
        view = PairView(self.images, self.source.labels, resolutions, labelled, *self._shard())
        return self._data_loader(view, sampler)

    def _eval_loader(self, part: str) -> DataLoader:
        rank, world_size = self._shard()
        self.check_processes(world_size)
        members = self.positions[part][rank::world_size]
        resolutions, steps = self._method().resolutions, list(members.split(self.images_per_step))
        return self._data_loader(PairView(self.images, self.source.labels, resolutions), steps)

    def _data_loader(self, fetch: Callable[[Tensor], PairBatch], sampler: Any) -> DataLoader:
        every = all(stack.kept.keys() == stack.sizes.keys() for stack in self.images.values())
        workers = 0 if every else self.num_workers
        return DataLoader(
            IndexedView(fetch),
            sampler=sampler,
            batch_size=None,
            num_workers=workers,
            generator=torch.Generator(),  # without one, every iterator draws from the global generator
        )

    def _method(self) -> Any:
        assert self.trainer is not None
        return self.trainer.lightning_module

    def _shard(self) -> tuple[int, int]:
        assert self.trainer is not None
        return self.trainer.global_rank, self.trainer.world_size
