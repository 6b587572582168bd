"""A tile classifier at low magnification learns what a model of slides said of the same tissue at high magnification.

An extension of resolution distillation to slides with slide labels alone, in the spirit of LRMIL (arXiv 2606.06864),
whose teacher-guided attention the optional aggregator has, and of HDMIL (CVPR 2025).

    python -m kd_mil.run experiment=resolution_weno data.slides=slides.csv data.teacher=runs/weno_dsmil/default
"""

from typing import Any

import torch
from torch import Tensor, nn

from kd_mil.core.checks import above, at_least
from kd_mil.core.errors import UserError
from kd_mil.core.machine.dealing import dealing
from kd_mil.data.batches import BagBatch, InstanceBatch
from kd_mil.methods.base.bag_method import BagMethod, aggregator_loss
from kd_mil.methods.base.method import ModuleFactory
from kd_mil.methods.base.readings import BagReadings
from kd_mil.methods.resolution.table_teacher import guided_attention_loss, taught_loss
from kd_mil.models.outputs import MILOutput, Prediction, max_pooled


class LowMagnification(BagMethod):
    """Encoder and tile classifier that learn a teacher's probabilities; a bag is as positive as its most positive tile.

    Neither tile labels nor, but for tiles of negative slides, slide labels train it; slide labels of validation slides
    select. With an aggregator, a second role tells slides apart by the student's features, which it does not move: it
    learns slide labels, and to attend where the teacher did.

    Args:
        instance_shape: (C, H, W) of one tile at low magnification.
        num_classes: C >= 2; class 0 is the negative one.
        encoder, student_head: factories of the two parts.
        aggregator: factory of an aggregator over the student's features; None leaves it out.
        temperature: T of Eq. 2 of DiPalma et al. 2021.
        w_attention: weight of the guided attention beside 1 for the slide's label.
        instance_stream_weight: share of the instance stream in the aggregator's loss, where it has one.
        **training: preprocess, optimizer, gradient_clip, seed of `BagMethod`.

    Raises:
        UserError: a setting out of range.
    """

    roles: tuple[str, ...] = ("student", "aggregate")
    train_views: tuple[str, ...] = ("instances",)
    teacher_probs: Tensor
    """(N, C) of every instance of the data set; NaN where the teacher saw nothing."""
    teacher_attention: Tensor
    """(N,) sums to 1 over each bag that the teacher saw, 0 elsewhere."""

    def __init__(
        self,
        instance_shape: tuple[int, ...],
        num_classes: int,
        encoder: ModuleFactory,
        student_head: ModuleFactory,
        aggregator: ModuleFactory | None = None,
        temperature: float = 1.0,
        w_attention: float = 1.0,
        instance_stream_weight: float = 0.5,
        **training: Any,
    ) -> None:
        self.roles = ("student",) if aggregator is None else ("student", "aggregate")
        super().__init__(num_classes=num_classes, **training)
        above("method.temperature", temperature)
        at_least("method.w_attention", w_attention, 0)
        self.temperature, self.w_attention = temperature, w_attention
        self.instance_stream_weight = instance_stream_weight
        self.encoder = encoder(instance_shape=tuple(instance_shape))
        self.student_head = student_head(in_features=self.encoder.out_features, num_classes=num_classes)
        self.aggregator: nn.Module | None = None
        if aggregator is not None:
            self.aggregator = aggregator(in_features=self.encoder.out_features, num_classes=num_classes)
            self.train_views = ("instances", "bags")
        self.register_buffer("teacher_probs", torch.empty(0, num_classes), persistent=False)
        self.register_buffer("teacher_attention", torch.empty(0), persistent=False)

    @property
    def learns_from_targets(self) -> bool:
        """Tiles learn the teacher's probabilities; labels of slides train the aggregator alone."""
        return self.aggregator is not None

    def parts(self) -> list[nn.Module]:
        return [part for part in (self.encoder, self.student_head, self.aggregator) if part is not None]

    def setup(self, stage: str) -> None:
        """Take the teacher's word from the data; UserError where they have none."""
        super().setup(stage)
        if stage != "fit":
            return
        taught = getattr(self.trainer.datamodule, "taught", None)  # type: ignore[attr-defined]
        if taught is None:
            raise UserError("method=low_magnification learns from a model of slides: choose data=taught_slides")
        device = self.teacher_probs.device
        self.teacher_probs, self.teacher_attention = taught.probs.to(device), taught.attention.to(device)

    def training_step(self, batch: InstanceBatch | BagBatch, batch_idx: int) -> None:
        if isinstance(batch, BagBatch):
            self._aggregator_step(batch)
            return
        targets = self.teacher_probs[batch.instance_ids.to(self.device)]
        with dealing(batch.share) as deal:
            logits = deal.gather(self.student_head(self.encoder(self.preprocess(batch.instances))))
        loss = taught_loss(logits, targets, self.temperature)
        self.step_optimizers(loss, *self.optimizer_list()[:2])
        self.log_loss("student", loss, len(batch.labels))

    def _aggregator_step(self, bags: BagBatch) -> None:
        assert self.aggregator is not None
        self.encoder.eval()  # bags leave no trace in its normalisation
        with torch.no_grad(), dealing(bags.share) as deal:
            features = deal.gather(self.encoder(self.preprocess(bags.instances)))
        self.encoder.train()
        output: MILOutput = self.aggregator(features, bags.sizes)
        guide = self.teacher_attention[bags.instance_ids.to(self.device)]
        label = aggregator_loss(output, bags.labels, bags.sizes, self.instance_stream_weight, self.bag_targets)
        attention = guided_attention_loss(output.attention, guide, bags.sizes)
        loss = label + self.w_attention * attention
        self.step_optimizers(loss, self.optimizer_list()[2])
        self.log_loss("aggregate", loss, len(bags.sizes), attention=attention)

    def encode(self, instances: Tensor) -> tuple[Tensor, ...]:
        return (self.encoder(self.preprocess(instances)),)

    def predict_encoded(self, encoded: tuple[Tensor, ...], sizes: Tensor) -> dict[str, Prediction]:
        [features] = encoded
        probs = self.student_head(features).double().softmax(1)
        positive = probs[:, 1:].sum(1)
        by_class = probs if self.num_classes > 2 else None
        found = {"student": Prediction(max_pooled(probs, sizes), positive, positive, None, by_class)}
        if self.aggregator is not None:
            output: MILOutput = self.aggregator(features, sizes)
            readings = BagReadings(self.aggregator, features, sizes, output, output.attention_logits, None)
            found["aggregate"] = readings.predict("attention")
        return found
