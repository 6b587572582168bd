"""Base of the methods on image pairs: updates over images of unequal sizes, and evaluation without padding."""

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from lightning.pytorch.strategies import ParallelStrategy
from torch import Tensor, nn

from kd_mil.core.errors import UserError
from kd_mil.core.machine.shares import WHOLE
from kd_mil.data.batches import PairBatch, same_size_groups
from kd_mil.evaluation.classification import IMAGE_METRICS, image_scores
from kd_mil.evaluation.metrics import Scores
from kd_mil.evaluation.tables import Columns, Rows
from kd_mil.methods.base.image_method import ImageMethod
from kd_mil.methods.base.method import refuse_nan
from kd_mil.methods.resolution.pair_augment import Draw, PairAugment, recolour, turn
from kd_mil.models.image_classifier import ImageClassifier

Losses = dict[str, Tensor]


class PairMethod(ImageMethod):
    """Base of every method on images at two resolutions: a method adds its losses and which networks move.

    Args:
        augment: random changes, the same for both members of a pair.
        max_pixels: pixels that go through the networks at once; more are taken in turn, without changing the update.
        **training: optimizer, gradient_clip, seed of `Method`.
    """

    monitors = (*(f"image_{name}" for name in IMAGE_METRICS), "image_agreement")
    teacher: ImageClassifier
    student: ImageClassifier

    def __init__(self, augment: PairAugment, max_pixels: int = 4_000_000, **training: Any) -> None:
        super().__init__(**training)
        self.augment, self.max_pixels = augment, max_pixels
        self._rows = Rows("index")

    def setup(self, stage: str) -> None:
        """Refuse on several ranks what looks at, or draws for, a batch: images of a size are one, wherever they are.

        Raises:
            UserError: naming the layer.
        """
        super().setup(stage)
        whole = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
        found = [type(layer).__name__ for layer in self.modules() if isinstance(layer, whole)]
        if stage == "fit" and self.trainer.world_size > 1 and found:
            raise UserError(f"method.network has {found[0]} layers, which train in one process only: use GroupNorm")

    @property
    def resolutions(self) -> tuple[str, ...]:
        """Where this run has a network, and what it is evaluated on: `teacher`, `student`."""
        raise NotImplementedError

    @property
    def train_view(self) -> str:
        """What the data module is to show now: `teacher` or `student` images with labels, or `pairs` without."""
        raise NotImplementedError

    def losses(self, teacher_images: Tensor | None, student_images: Tensor | None, labels: Tensor) -> Losses:
        """Losses of B images of one size, float (B, 3, H, W) in [0, 1]; `total` is what the gradient is taken of."""
        raise NotImplementedError

    def moved(self) -> list[Any]:
        """The optimisers that step now."""
        raise NotImplementedError

    @property
    def learner(self) -> str:
        """The role whose network moves now."""
        raise NotImplementedError

    def classifiers(self) -> dict[str, tuple[ImageClassifier, str]]:
        return {
            role: (self.teacher, "teacher") if role == "teacher" else (self.student, "student") for role in self.roles
        }

    @property
    def default_monitor(self) -> str:
        return f"val/{self.roles[-1]}/image_loss"

    def selectable(self, role: str) -> tuple[str, ...]:
        return tuple(name for name in self.monitors if role == "student" or name != "image_agreement")

    def training_step(self, images: PairBatch, batch_idx: int) -> None:
        """One update: gradients of images of equal size together, summed over the sizes (Sec. 3.5)."""
        count, optimizers, step = len(images.labels), self.moved(), images.share or WHOLE
        draw, labels = Draw(*map(step.own, self.augment.draw(count))), step.own(images.labels)
        sides = [
            [turn(image, draw, index) for index, image in enumerate(side)] for side in (images.teacher, images.student)
        ]
        for optimizer in optimizers:
            optimizer.zero_grad()
        groups = same_size_groups(*sides, max_pixels=self.max_pixels)
        logged: Losses = {}
        for number, group in enumerate(groups):
            chosen = torch.tensor(group)
            teacher, student = (
                recolour(torch.stack([side[index] for index in group]), draw, chosen) if side else None
                for side in sides
            )
            with self._without_exchange(number + 1 < len(groups)):
                losses = self.losses(teacher, student, labels[chosen.to(labels.device)])
                self.manual_backward(losses["total"] * (len(group) / count * step.weight))
            for name, loss in losses.items():
                part = loss.detach() * (len(group) / count * (step.weight > 0))
                logged[name] = logged.get(name, torch.zeros_like(loss)) + part
        self.step(*optimizers)
        logged = dict(zip(logged, step.sum(torch.stack(list(logged.values()))), strict=True))
        self.log_loss(self.learner, logged.pop("total"), count, **logged)

    def _without_exchange(self, quiet: bool) -> AbstractContextManager:
        """Ranks have images of different numbers of sizes: they exchange gradients once, in the last pass of all."""
        strategy = self.trainer.strategy
        return strategy.block_backward_sync() if quiet and isinstance(strategy, ParallelStrategy) else nullcontext()

    def predict_images(self, images: PairBatch) -> dict[str, Tensor]:
        """Class probabilities (B, C) float64 of each role."""
        probs = {}
        for role, (classifier, resolution) in self.classifiers().items():
            side = images.teacher if resolution == "teacher" else images.student
            rows: list[Tensor] = [torch.empty(0)] * len(side)
            for group in same_size_groups(side, max_pixels=self.max_pixels):
                logits = classifier(torch.stack([side[index] for index in group])).logits.double()
                for index, row in zip(group, logits.softmax(1), strict=True):
                    rows[index] = row
            probs[role] = torch.stack(rows)
        return probs

    def collect(self, images: PairBatch) -> None:
        probs = {f"{role}/probs": value for role, value in self.predict_images(images).items()}
        self._rows.add({"index": images.indices, "label": images.labels} | probs)

    def gather(self) -> Columns:
        return self._rows.collect()

    def score_role(self, stage: str, role: str) -> Scores:
        """Scores of images; NaN for a network that has not learned yet, so that it selects nothing."""
        rows: Columns = self.tables[stage]
        refuse_nan(role, rows[f"{role}/probs"])
        scores = image_scores(rows[f"{role}/probs"], rows["label"], of=f"{stage}/{role} images")
        if role == "student":
            student, teacher = (rows[f"{name}/probs"].argmax(1) for name in ("student", "teacher"))
            scores["image_agreement"] = float((student == teacher).double().mean())
        return scores if self.has_learned(role) else dict.fromkeys(scores, math.nan)
