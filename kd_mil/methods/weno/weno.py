"""WENO: bi-directional weakly supervised knowledge distillation (Qu et al., NeurIPS 2022, arXiv 2210.03664).

python -m kd_mil.run experiment=weno_dsmil
"""

import copy
from typing import Any, Literal

import torch
from torch import Tensor, nn

from kd_mil.core.checks import share
from kd_mil.core.errors import UserError
from kd_mil.data.batches import BagBatch, InstanceBatch
from kd_mil.methods.base.attention_memory import AttentionMemory, Normalisation, attention_pseudo_labels
from kd_mil.methods.base.bag_method import BagMethod, aggregator_loss
from kd_mil.methods.base.method import ModuleFactory
from kd_mil.methods.weno.losses import student_loss
from kd_mil.methods.weno.mining import HardPositiveMining
from kd_mil.models.aggregators.pooling import Mean
from kd_mil.models.outputs import MILOutput, Prediction
from kd_mil.models.segments import segment_max, segment_sum


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
        pseudo_labels: take the scores from the `bank` filled during the teacher phase (the only way for attention that
            depends on the rest of the bag), or `recompute` them for the student's instances with the present teacher.
        negative_weight: weight of negative targets in the student's loss, 0.5 = plain cross-entropy.
        instance_stream_weight: share of the instance stream in the teacher's loss, where the aggregator has one.
        **training: preprocess, optimizer, gradient_clip, seed of `BagMethod`.

    Raises:
        UserError: a switch outside its choices, or a combination the aggregator cannot serve.
    """

    train_views = ("bags", "instances")
    roles = ("teacher", "student")

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
        pseudo_labels: Literal["bank", "recompute"] = "bank",
        negative_weight: float = 0.5,
        instance_stream_weight: float = 0.5,
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
        self.student_encoder = None if shared_encoder else copy.deepcopy(self.encoder)
        self.hpm, self.distillation, self.attention_source = hpm, distillation, attention_source
        self.recompute = self._can_recompute(pseudo_labels)
        self.memory = self.new_memory(normalisation, num_classes)
        self.negative_weight, self.instance_stream_weight = negative_weight, instance_stream_weight
        self.dropped: list[Tensor] = []
        """Ids of the instances HPM dropped in this epoch, one tensor per step; for callbacks to show."""
        self.pseudo_labels: list[tuple[Tensor, Tensor]] = []
        """Ids and pseudo-labels of the instances the student saw in this epoch, one pair per step; for callbacks."""

    def check_classes(self, num_classes: int) -> None:
        """Refuse data the method has no means for; raises `UserError`."""
        if num_classes != 2:
            raise UserError(
                f"WENO is a binary method, but the data has {num_classes} classes: "
                "use method=mil, or method=weno_multiclass (beyond the paper)"
            )

    def new_memory(self, normalisation: Normalisation, num_classes: int) -> AttentionMemory:
        """Memory of the teacher phase: range and bank of its scores."""
        return AttentionMemory(normalisation, keep_scores=not self.recompute)

    def parts(self) -> list[nn.Module]:
        parts = [self.encoder, self.aggregator, self.student_head]
        return parts if self.student_encoder is None else [*parts, self.student_encoder]

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if stage == "fit":
            bags = self.trainer.datamodule.bags  # type: ignore[attr-defined]
            self.memory.allocate(num_bags=len(bags), num_instances=len(bags.bag_of_instance))

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        self.dropped.clear()
        self.pseudo_labels.clear()

    def training_step(self, batch: BagBatch | InstanceBatch, batch_idx: int) -> None:
        encoder, teacher, student, *student_encoder = self.optimizer_list()
        if isinstance(batch, BagBatch):
            loss = self.teacher_loss(batch)
            self.step_optimizers(loss, encoder, teacher)
            self.log_loss("teacher", loss, len(batch.sizes))
        else:
            self.memory.finalize()
            loss = self.student_loss(batch)
            self.step_optimizers(loss, student, *(student_encoder or [encoder]))
            self.log_loss("student", loss, len(batch.labels))

    def teacher_loss(self, bags: BagBatch) -> Tensor:
        """Eq. 8-12 on the bags as HPM leaves them; notes attention for the student phase."""
        features = self.encoder(self.preprocess(bags.instances, bags.sizes))
        seen, sizes, keep = features, bags.sizes, None
        if self.hpm.active(self.current_epoch):
            keep = self.hpm.keep(self._student_probs(features, bags), bags.sizes, bags.labels)
            seen, sizes = features[keep], segment_sum(keep.float(), bags.sizes).long()
            self.dropped.append(bags.instance_ids[~keep])
        output = self.aggregator(seen, sizes)
        self._note_scores(self.scores_of(output), features, bags, keep)
        return aggregator_loss(output, bags.labels, sizes, self.instance_stream_weight)

    def _note_scores(self, scores: Tensor, features: Tensor, bags: BagBatch, keep: Tensor | None) -> None:
        """Scores of all instances go to the bank; their range runs over those that HPM kept."""
        owners = bags.bag_indices.repeat_interleave(bags.sizes)
        kept = slice(None) if keep is None else keep
        if self.recompute:
            self.memory.record_range(scores, owners[kept])
            return
        if keep is not None:  # one pass over whole bags: attention may depend on the rest of the bag
            scores = self._scores_without_gradient(features, bags.sizes)
        self.memory.record_scores(scores, bags.instance_ids)
        self.memory.record_range(scores[kept], owners[kept])

    def student_loss(self, instances: InstanceBatch) -> Tensor:
        """Eq. 13-15: soft labels from the teacher's attention, exactly 0 for instances of negative bags."""
        pixels = self.preprocess(instances.instances)
        features = (self.student_encoder or self.encoder)(pixels)
        pseudo_labels = instances.labels.float()
        if self.distillation:
            bank = self.memory.scores
            scores = self._point_scores(features, pixels) if self.recompute else bank[instances.instance_ids]
            low, high = self.memory.range_of(instances.bag_indices)
            pseudo_labels = attention_pseudo_labels(scores, instances.labels, low, high, self.memory.per_bag)
        self.pseudo_labels.append((instances.instance_ids, pseudo_labels))
        return student_loss(self.student_head(features), pseudo_labels, self.negative_weight)

    def scores_of(self, output: MILOutput) -> Tensor:
        """Teacher score (N,) that Eq. 6 normalises."""
        if self.attention_source == "attention":
            return output.attention_logits
        assert output.instance_logits is not None
        return output.instance_logits[:, 1]

    def encode(self, instances: Tensor) -> tuple[Tensor, ...]:
        """Features for the teacher and, where it has an encoder of its own, for the student."""
        pixels = self.preprocess(instances)
        features = self.encoder(pixels)
        return (features,) if self.student_encoder is None else (features, self.student_encoder(pixels))

    def predict_encoded(self, encoded: tuple[Tensor, ...], sizes: Tensor) -> dict[str, Prediction]:
        features, student_features = encoded[0], encoded[-1]
        output = self.aggregator(features, sizes)
        scores = self.scores_of(output)
        low, high = self._evaluation_range(scores, sizes)
        normalised = attention_pseudo_labels(scores, torch.ones_like(scores), low, high, self.memory.per_bag)
        teacher = Prediction(output.bag_logits.double().softmax(1), normalised, scores, output.attention)
        probs = self.student_head(student_features).double().softmax(1)[:, 1]
        bag_prob = segment_max(probs, sizes)
        return {"teacher": teacher, "student": Prediction(torch.stack([1 - bag_prob, bag_prob], 1), probs, probs)}

    def _can_recompute(self, pseudo_labels: str) -> bool:
        """Whether scores are recomputed per instance; refuses what the aggregator has no means for."""
        if isinstance(self.aggregator, Mean):
            raise UserError("mean pooling has no attention to learn from: choose another aggregator as WENO's teacher")
        name, needed = type(self.aggregator).__name__, f"{self.attention_source}_logits"
        if self.attention_source == "instance" and not hasattr(self.aggregator, needed):
            raise UserError(f"{name} has no instance stream: use method.attention_source=attention")
        if pseudo_labels == "recompute" and not hasattr(self.aggregator, needed):
            raise UserError(
                f"{name} has no {needed}(features) outside a bag, so its scores cannot be recomputed: "
                "use method.pseudo_labels=bank"
            )
        return pseudo_labels == "recompute"

    @torch.no_grad()
    def _student_probs(self, features: Tensor, bags: BagBatch) -> Tensor:
        """Student probability (N,) of the instances of training bags: student head without dropout."""
        if self.student_encoder is not None:
            features = self.student_encoder(self.preprocess(bags.instances, bags.sizes))
        self.student_head.eval()
        probs = self.student_head(features).softmax(1)[:, 1]
        self.student_head.train()
        return probs

    @torch.no_grad()
    def _point_scores(self, features: Tensor, pixels: Tensor) -> Tensor:
        """Scores (M,) of instances outside their bags by the present teacher."""
        if self.student_encoder is not None:
            features = self.encoder(pixels)
        if self.attention_source == "attention":
            return self.aggregator.attention_logits(features)  # type: ignore[operator]
        return self.aggregator.instance_logits(features)[:, 1]  # type: ignore[operator]

    @torch.no_grad()
    def _scores_without_gradient(self, features: Tensor, sizes: Tensor) -> Tensor:
        """Scores (N,) of whole bags, so that instances HPM dropped get a pseudo-label all the same."""
        return self.scores_of(self.aggregator(features, sizes))

    def _evaluation_range(self, scores: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
        """Range that turns scores of unseen bags into probabilities: the training set's, or each bag's own."""
        if not self.memory.per_bag:
            return self.memory.low, self.memory.high
        low, high = -segment_max(-scores, sizes), segment_max(scores, sizes)
        return low.repeat_interleave(sizes), high.repeat_interleave(sizes)
