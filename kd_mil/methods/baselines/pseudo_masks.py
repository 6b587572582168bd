"""Segmentation from class activation maps in two stages: a classifier's maps become masks, a segmenter learns them.

What the rivals of IFKD have in common; how maps become masks, and how they teach, is theirs: `oeem`, `oaa`.
"""

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from kd_mil.core.checks import at_least, share
from kd_mil.core.errors import UserError
from kd_mil.core.machine.dealing import dealing
from kd_mil.core.machine.shares import WHOLE, WholeStep
from kd_mil.data.batches import ImageBatch
from kd_mil.methods.base.method import ModuleFactory
from kd_mil.methods.base.phases import Phase, Phases
from kd_mil.methods.base.pixel_losses import cross_entropy_of, cross_entropy_of_logits
from kd_mil.methods.base.segmentation_method import SegmentationMethod
from kd_mil.methods.base.snapshot import Select, Snapshot
from kd_mil.models.outputs import SegmentationOutput
from kd_mil.models.segmenters.cam import TrunkClassifier, activation_probs


class PseudoMasks(SegmentationMethod):
    """A classifier with class activation maps teaches a segmenter of the same stages.

    Stage one trains the classifier on image labels. In stage two its best epoch is frozen, and the segmenter learns,
    with cross-entropy of its sides and of their fusion, masks from the maps: a pixel is positive from `mask_from` of
    the map's maximum on; images of negative label are empty. No mask is ever read for it.

    Args:
        instance_shape: (C, H, W) of the images.
        num_classes: 2.
        segmenter: factory of a network that shows its feature maps; the classifier has another's stages.
        teacher_epochs: length of stage one.
        mask_from: share of the maximum of a map, in (0, 1).
        reload: the epoch that stage one hands on: its `best` by validation labels, or the `last`.
        **training: preprocess, reading, optimizer, gradient_clip, seed of `SegmentationMethod`.

    Raises:
        UserError: more than two classes, no epoch of stage one, or a share out of range.
    """

    roles = ("teacher", "student")
    best_loss: Tensor
    distilling: Tensor

    def __init__(
        self,
        instance_shape: tuple[int, ...],
        num_classes: int,
        segmenter: ModuleFactory,
        teacher_epochs: int = 30,
        mask_from: float = 0.3,
        reload: Select = "best",
        **training: Any,
    ) -> None:
        super().__init__(**training)
        if num_classes != 2:
            name = type(self).__name__.lower()
            raise UserError(f"method={name}_style tells tumour from the rest, but the data has {num_classes} classes")
        at_least("method.teacher_epochs", teacher_epochs, 1)
        share("method.mask_from", mask_from, zero=False, one=False)
        shape = tuple(instance_shape)
        self.teacher = TrunkClassifier(segmenter(instance_shape=shape))
        self.student = segmenter(instance_shape=shape)
        self.best = copy.deepcopy(self.teacher).requires_grad_(False)
        self.register_buffer("best_loss", torch.tensor(math.inf, dtype=torch.float64))
        self.register_buffer("distilling", torch.tensor(False))
        self.snapshot = Snapshot(self, select=reload)
        self.phases = Phases(Phase("teacher", teacher_epochs, "method.teacher_epochs"), Phase("student"))
        self.mask_from = mask_from

    def pseudo_masks(self, batch: ImageBatch, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) to learn from, and maps (B, H, W) in [0, 1] whose maximum is 1 to make masks of.

        Args:
            batch: as it was loaded.
            images: those that this rank has of it, preprocessed.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say where its masks come from")

    def pixel_weights(self, losses: Tensor, masks: Tensor) -> Tensor:
        """Weights (B, P) of pixels by their losses and masks (B, P); without a word of the method all are alike."""
        return torch.ones_like(losses)

    def parts(self) -> list[nn.Module]:
        return [self.teacher, self.student]

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        if self.phase == "student" and not self.distilling:
            self.snapshot.hand_on(self.teacher, self.teacher)
            self.distilling.fill_(True)
        self.teacher.train(not self.distilling)
        self.student.train(bool(self.distilling))

    def training_step(self, batch: ImageBatch, batch_idx: int) -> None:
        classifier, segmenter = self.optimizer_list()
        distilling = self.phase == "student"  # as `distilling` says, but on the host
        learner, optimizer = ("student", segmenter) if distilling else ("teacher", classifier)
        with dealing(batch.share) as deal:
            images, labels = self.preprocess(batch.images), deal.own(batch.labels)
            if distilling:
                with torch.no_grad():
                    images, maps = self.pseudo_masks(batch, images)
                masks = (maps >= self.mask_from).float() * (labels > 0).view(-1, 1, 1)
                loss = self.mask_loss(self.student(images), masks, deal)
            else:
                loss = deal.mean(cross_entropy_of_logits(self.teacher(images).logits, labels.float()))
        self.step_optimizers(loss, optimizer)
        self.log_loss(learner, loss, len(batch.labels))

    def mask_loss(self, output: SegmentationOutput, masks: Tensor, deal: WholeStep = WHOLE) -> Tensor:
        """Mean weighted cross-entropy () of all sides and the fused map against masks (B, H, W) of 0 and 1."""
        total = torch.zeros((), device=masks.device)
        for probs in (*output.sides.unbind(1), output.fused):
            losses, flat = cross_entropy_of(probs, masks).flatten(1), masks.flatten(1)
            total = total + deal.mean(losses * self.pixel_weights(losses.detach(), flat))
        return total

    def predict_maps(self, images: Tensor) -> dict[str, Tensor]:
        pixels = self.preprocess(images)
        maps = {"teacher": activation_probs(self.teacher(pixels))}
        return maps | {"student": self.student(pixels).fused} if self.distilling else maps

    def predict_images(self, images: Tensor, maps: dict[str, Tensor]) -> dict[str, Tensor]:
        """The classifier's own probability, and the generalised mean of the segmenter's map."""
        own = {"teacher": self.teacher(self.preprocess(images)).logits.double().sigmoid()}
        return super().predict_images(images, maps) | own

    def on_validation_epoch_end(self) -> None:
        super().on_validation_epoch_end()
        if self.fitting and not self.distilling:
            self.snapshot.offer(self.teacher, self.scores["val"]["teacher"]["image_loss"])
