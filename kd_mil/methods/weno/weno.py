"""WENO: bi-directional weakly supervised knowledge distillation (Qu et al., NeurIPS 2022, arXiv 2210.03664).

python -m kd_mil.run experiment=weno_dsmil
"""

import copy
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from kd_mil.core.checks import above, share
from kd_mil.core.errors import UserError
from kd_mil.core.machine.dealing import dealing
from kd_mil.data.batches import BagBatch, InstanceBatch
from kd_mil.methods.base.attention_memory import AttentionMemory, Normalisation, attention_pseudo_labels
from kd_mil.methods.base.bag_method import BagMethod, aggregator_loss
from kd_mil.methods.base.epoch_notes import EpochNotes
from kd_mil.methods.base.method import ModuleFactory
from kd_mil.methods.base.readings import BagReadings, check_instance_score, student_prediction
from kd_mil.methods.base.weight_average import WeightAverage, evaluating
from kd_mil.methods.weno.correction import LabelCorrection
from kd_mil.methods.weno.epoch_labels import labels_of_epoch
from kd_mil.methods.weno.feedback import StudentFeedback
from kd_mil.methods.weno.losses import student_loss
from kd_mil.methods.weno.mining import HardPositiveMining
from kd_mil.methods.weno.sources import can_recompute
from kd_mil.methods.weno.transport_labels import TransportLabels
from kd_mil.models.outputs import MILOutput, Prediction
from kd_mil.models.segments import kept_positions, segment_sum


class WENO(BagMethod):
    """A bag teacher and an instance student that train each other through one encoder, Sec. 3.2.

    One epoch is a teacher phase over the bags (update 1 in Fig. 2), then a student phase over the instances of all
    bags (update 2). Attention of the teacher becomes soft labels for the student; the shared encoder carries what the
    student learns back to the teacher, and hard positive mining (HPM) hides from the teacher what the student already
    finds. Inference: student probabilities, and their maximum over a bag.

    Args:
        instance_shape: (C, H, W) or (D,) of one instance.
        num_classes: 2; WENO is a binary method.
        encoder, aggregator, student_head: factories of the three parts.
        hpm: which instances of positive bags the teacher gets to see, Sec. 3.3.
        shared_encoder: one encoder for both (paper) or one each (Table 4).
        distillation: False trains the student on bag labels instead of attention (every instance inherits its bag's).
        normalisation: min and max of Eq. 7 over the `training_set` or over each `bag`.
        attention_source: `attention` logits, or the positive logit of the `instance` stream (released DSMIL).
        attention_from: take the scores from the `bank` filled during the teacher phase (the only way for attention that
            depends on the rest of the bag), or `recompute` them for the student's instances with the present teacher.
        pseudo_labels: what the student learns: the teacher's normalised `attention` (paper), its probability of each
            instance as a `bag_of_one`, or labels by `transport` from both networks.
        transport: settings of the last.
        correction, feedback: what the student is sure of, for its labels and for the teacher; off by default (paper).
        average: decay of a running average of all weights, which labels and evaluates; None for none (paper).
        negative_weight: weight of negative targets in the student's loss, 0.5 = plain cross-entropy.
        instance_stream_weight: share of the instance stream in the teacher's loss, where the aggregator has one.
        student_lr: learning rate of the student's head, and encoder where it has its own; None for the teacher's.
        **training: preprocess, optimizer, gradient_clip, seed, instance_score (of the teacher) of `BagMethod`.

    Raises:
        UserError: a switch outside its choices, or a combination the aggregator cannot serve.
    """

    train_views = ("bags", "instances")
    roles = ("teacher", "student")
    chooses_reading = True

    def __init__(
        self,
        instance_shape: tuple[int, ...],
        num_classes: int,
        encoder: ModuleFactory,
        aggregator: ModuleFactory,
        student_head: ModuleFactory,
        hpm: HardPositiveMining,
        shared_encoder: bool = True,
        distillation: bool = True,
        normalisation: Normalisation = "training_set",
        attention_source: Literal["attention", "instance"] = "attention",
        attention_from: Literal["bank", "recompute"] = "bank",
        pseudo_labels: Literal["attention", "bag_of_one", "transport"] = "attention",
        transport: TransportLabels | None = None,
        correction: LabelCorrection | None = None,
        feedback: StudentFeedback | None = None,
        average: float | None = None,
        negative_weight: float = 0.5,
        instance_stream_weight: float = 0.5,
        student_lr: float | None = None,
        **training: Any,
    ) -> None:
        super().__init__(num_classes=num_classes, **training)
        self.check_classes(num_classes)
        share("method.negative_weight", negative_weight, zero=False, one=False)
        share("method.instance_stream_weight", instance_stream_weight)
        self.encoder: nn.Module = encoder(instance_shape=tuple(instance_shape))
        width = self.encoder.out_features
        self.aggregator = aggregator(in_features=width, num_classes=num_classes)
        self.student_head = student_head(in_features=width, num_classes=num_classes)
        check_instance_score(self.instance_score, self.aggregator)
        self.student_encoder = None if shared_encoder else copy.deepcopy(self.encoder)
        self.hpm, self.distillation, self.attention_source = hpm, distillation, attention_source
        self.correction, self.feedback = correction or LabelCorrection(), feedback or StudentFeedback()
        self.label_kind, learned = pseudo_labels, distillation and pseudo_labels == "attention"
        self.recompute = can_recompute(self.aggregator, attention_source, attention_from, learned)
        self.memory = self.new_memory(normalisation, num_classes)
        self.transport = (transport or TransportLabels()) if pseudo_labels == "transport" else None
        self.average = None if average is None else WeightAverage(self.parts(), average)
        self._labels: Tensor | None = None
        self.negative_weight, self.student_lr = negative_weight, student_lr
        self.instance_stream_weight = instance_stream_weight
        above("method.student_lr", 1.0 if student_lr is None else student_lr)
        self.notes = EpochNotes()

    def check_classes(self, num_classes: int) -> None:
        """Refuse data the method has no means for; raises `UserError`."""
        if num_classes != 2:
            raise UserError(
                f"WENO is a binary method, but the data has {num_classes} classes: "
                "use method=mil, or method=weno_multiclass (beyond the paper)"
            )

    def new_memory(self, normalisation: Normalisation, num_classes: int) -> AttentionMemory:
        """Memory of the teacher phase: range and bank of its scores."""
        return AttentionMemory(normalisation, keep_scores=self.label_kind == "attention" and not self.recompute)

    def parts(self) -> list[nn.Module]:
        parts = [self.encoder, self.aggregator, self.student_head]
        return parts if self.student_encoder is None else [*parts, self.student_encoder]

    def configure_optimizers(self) -> list[Optimizer]:
        optimizers = super().configure_optimizers()
        if self.student_lr is not None:
            for group in [group for optimizer in optimizers[2:] for group in optimizer.param_groups]:
                group["lr"] = self.student_lr
        return optimizers

    @property
    def evaluated_parts(self) -> list[nn.Module]:
        """The networks that validation, prediction and labels by transport ask: `parts`, or their running average."""
        return self.parts() if self.average is None else list(self.average.parts)

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if stage == "fit":
            bags = self.trainer.datamodule.bags  # type: ignore[attr-defined]
            self.memory.allocate(num_bags=len(bags), num_instances=len(bags.bag_of_instance))

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        self.notes.clear()
        self._labels = None

    def training_step(self, batch: BagBatch | InstanceBatch, batch_idx: int) -> None:
        encoder, teacher, student, *student_encoder = self.optimizer_list()
        if isinstance(batch, BagBatch):
            role, loss, moved = "teacher", self.teacher_loss(batch), (encoder, teacher)
        else:
            self.begin_student_phase()
            role, loss, moved = "student", self.student_loss(batch), (student, *(student_encoder or [encoder]))
        self.step_optimizers(loss, *moved)
        self.log_loss(role, loss, len(batch.labels))
        if self.average is not None:
            self.average.update(self.parts())

    def teacher_loss(self, bags: BagBatch) -> Tensor:
        """Eq. 8-12 on the bags as HPM leaves them; notes attention for the student phase."""
        features = self.features_of(self.encoder, bags)
        seen, sizes, keep = features, bags.sizes, None
        if self.hpm.active(self.current_epoch, self.run_epochs):
            stays = self.hpm.keep(self._student_probs(features, bags), bags.sizes, bags.labels)
            keep, sizes = kept_positions(stays), segment_sum(stays.float(), bags.sizes).long()
            seen = features.index_select(0, keep)
            self.notes.mined(bags.instance_ids, stays)
        output = self.aggregator(seen, sizes)
        scores = self.scores_of(output)
        self.memory.record(scores, bags, keep, lambda: self.scores_of(self.aggregator(features, bags.sizes)))
        loss = aggregator_loss(output, bags.labels, sizes, self.instance_stream_weight, self.bag_targets)
        feedback = self.feedback.weight_in(self.current_epoch, self.run_epochs)
        if feedback:
            said = self._student_probs(features, bags)[slice(None) if keep is None else keep]
            loss = loss + feedback * self.feedback.loss(output.attention_logits, said, sizes, bags.labels)
        return loss

    def begin_student_phase(self) -> None:
        """Close the teacher phase, once in an epoch; labels that are not attention are made here."""
        self.memory.finalize()
        if self.distillation and self.label_kind != "attention" and self._labels is None:
            _, aggregator, head, *_ = self.evaluated_parts
            self._labels = labels_of_epoch(self, aggregator, head, self.transport)

    def student_loss(self, instances: InstanceBatch) -> Tensor:
        """Eq. 13-15: soft labels from the teacher, exactly 0 for instances of negative bags."""
        recompute = self.recompute and self.distillation and self._labels is None
        with dealing(instances.share) as deal:
            pixels = self.preprocess(instances.instances)
            features = (self.student_encoder or self.encoder)(pixels)
            present = deal.gather(self._point_scores(features, pixels)) if recompute else None
            logits = deal.gather(self.student_head(features))
        labels = self.labels_for(instances, present)
        labels = self.correction.corrected(labels, logits, instances.labels, self.current_epoch, self.run_epochs)
        self.notes.student_step(instances, labels, logits)
        return student_loss(logits, labels, self.negative_weight)

    def labels_for(self, instances: InstanceBatch, present: Tensor | None) -> Tensor:
        """Pseudo-labels (M,) in [0, 1]: Eq. 13 on the present scores or the bank's, or those made for the epoch."""
        if not self.distillation:
            return instances.labels.float()
        if self._labels is not None:
            return self._labels[instances.instance_ids]
        scores = self.memory.scores[instances.instance_ids] if present is None else present
        low, high = self.memory.range_of(instances.bag_indices)
        return attention_pseudo_labels(scores, instances.labels, low, high, self.memory.per_bag)

    def scores_of(self, output: MILOutput) -> Tensor:
        """Teacher score (N,) that Eq. 6 normalises."""
        if self.attention_source == "attention":
            return output.attention_logits
        assert output.instance_logits is not None
        return output.instance_logits[:, 1]

    def encode(self, instances: Tensor) -> tuple[Tensor, ...]:
        """Features for the teacher and, where it has an encoder of its own, for the student."""
        pixels = self.preprocess(instances)
        encoder, _, _, *student_encoder = self.evaluated_parts
        return (encoder(pixels), *(other(pixels) for other in student_encoder))

    def predict_encoded(self, encoded: tuple[Tensor, ...], sizes: Tensor) -> dict[str, Prediction]:
        _, aggregator, head, *_ = self.evaluated_parts
        output = aggregator(encoded[0], sizes)
        memory = self.memory if self.attention_source == "attention" else None  # else its range is of other scores
        readings = BagReadings(aggregator, encoded[0], sizes, output, output.attention_logits, memory)
        student = student_prediction(head(encoded[-1]), output.bag_logits, sizes)
        return {"teacher": self.predict_role("teacher", readings), "student": student}

    def _student_probs(self, features: Tensor, bags: BagBatch) -> Tensor:
        """Student probability (N,) of the instances of training bags: student head without dropout."""
        with evaluating(self.student_head):
            features = features if self.student_encoder is None else self.features_of(self.student_encoder, bags)
            return self.student_head(features).softmax(1)[:, 1]

    @torch.no_grad()
    def _point_scores(self, features: Tensor, pixels: Tensor) -> Tensor:
        """Scores (M,) of instances outside their bags by the present teacher."""
        if self.student_encoder is not None:
            features = self.encoder(pixels)
        scores: Tensor = getattr(self.aggregator, f"{self.attention_source}_logits")(features)
        return scores if self.attention_source == "attention" else scores[:, 1]
