"""MHIM-MIL: masked hard instance mining with an averaged teacher (Tang et al., ICCV 2023, arXiv 2307.15254).

python -m kd_mil.run experiment=mhim_abmil
"""

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_mil.core.checks import above, at_least, share
from kd_mil.core.errors import UserError
from kd_mil.data.batches import BagBatch
from kd_mil.methods.base.attention_memory import AttentionMemory
from kd_mil.methods.base.bag_method import BagMethod, aggregator_loss
from kd_mil.methods.base.method import ModuleFactory
from kd_mil.methods.base.readings import BagReadings, check_instance_score
from kd_mil.methods.base.weight_average import follow
from kd_mil.models.aggregators.pooling import Mean
from kd_mil.models.masking import keep_harder_part
from kd_mil.models.outputs import MILOutput, Prediction
from kd_mil.models.segments import kept_positions, per_instance, segment_sum


class MHIM(BagMethod):
    """The student trains on bags without the instances that its moving average, the teacher, attends to most.

    Sec. 3: the teacher scores the instances of the whole bag; some of the highest are masked; the student classifies
    the rest and keeps its bag embedding consistent with the teacher's. Masking is by a share of the bag, so unlike
    WENO's threshold it keeps hiding instances where none is easy, and negative bags lose theirs as well. The
    authors start the teacher from a trained baseline: `start_epoch` trains one first.

    Args:
        instance_shape: (C, H, W) or (D,) of one instance.
        num_classes: C >= 2; class 0 is the negative one.
        encoder, aggregator: factories of the two parts.
        mask_ratio: share of a bag that is masked; 0.01 to 0.05 in the paper.
        mask_share: which part of the candidates of highest attention is masked; 1 masks exactly the highest.
        low_ratio: share of a bag masked among the lowest scores.
        momentum: of the teacher's average, per step.
        consistency_weight: of the consistency loss next to 1 for the bag loss.
        temperature: of the teacher's embedding.
        start_epoch: first epoch (from 0) with masks and consistency.
        instance_stream_weight: share of the instance stream in the loss, where the aggregator has one.
        **training: preprocess, optimizer, gradient_clip, seed, instance_score of `BagMethod`.

    Raises:
        UserError: a setting outside its range, or an aggregator without attention or the reading asked for.
    """

    roles = ("student", "teacher")
    chooses_reading = True

    def __init__(
        self,
        instance_shape: tuple[int, ...],
        num_classes: int,
        encoder: ModuleFactory,
        aggregator: ModuleFactory,
        mask_ratio: float = 0.03,
        mask_share: float = 0.5,
        low_ratio: float = 0.0,
        momentum: float = 0.9997,
        consistency_weight: float = 0.5,
        temperature: float = 0.1,
        start_epoch: int = 0,
        instance_stream_weight: float = 0.5,
        **training: Any,
    ) -> None:
        super().__init__(num_classes=num_classes, **training)
        for name, value in {"mask_ratio": mask_ratio, "low_ratio": low_ratio, "momentum": momentum}.items():
            share(f"method.{name}", value)
        share("method.instance_stream_weight", instance_stream_weight)
        share("method.mask_share", mask_share, zero=False)
        share("method.mask_ratio + method.low_ratio", mask_ratio + low_ratio, one=False)
        above("method.temperature", temperature)
        at_least("method.consistency_weight", consistency_weight, 0)
        at_least("method.start_epoch", start_epoch, 0)
        self.encoder = encoder(instance_shape=tuple(instance_shape))
        self.aggregator = aggregator(in_features=self.encoder.out_features, num_classes=num_classes)
        if isinstance(self.aggregator, Mean):
            raise UserError("mean pooling has no attention to mask by: choose another aggregator for method=mhim")
        check_instance_score(self.instance_score, self.aggregator)
        self.teacher = nn.ModuleList(copy.deepcopy(part).requires_grad_(False) for part in self.parts())
        self.mask_ratio, self.mask_share, self.low_ratio = mask_ratio, mask_share, low_ratio
        self.momentum, self.consistency_weight, self.temperature = momentum, consistency_weight, temperature
        self.start_epoch, self.instance_stream_weight = start_epoch, instance_stream_weight
        self.memory = AttentionMemory()

    def parts(self) -> list[nn.Module]:
        return [self.encoder, self.aggregator]

    def training_step(self, bags: BagBatch, batch_idx: int) -> None:
        loss = self.student_loss(bags)
        self.step_optimizers(loss, *self.optimizer_list())
        follow(self.teacher, self.parts(), self.momentum)  # Eq. 11
        self.log_loss("student", loss, len(bags.sizes))

    def student_loss(self, bags: BagBatch) -> Tensor:
        """Loss of the bags as the teacher masks them, Eq. 8-10."""
        features, sizes = self.features_of(self.encoder, bags), bags.sizes
        teacher = self.ask_teacher(bags)
        scores = teacher.attention_logits
        self.memory.record_range(scores, per_instance(bags.bag_indices, sizes, len(scores)))
        if self.current_epoch < self.start_epoch:
            return aggregator_loss(
                self.aggregator(features, sizes), bags.labels, sizes, self.instance_stream_weight, self.bag_targets
            )
        keep = keep_harder_part(scores, sizes, self.mask_ratio, self.mask_share, self.low_ratio)
        left = segment_sum(keep.float(), sizes).long()
        output = self.aggregator(features.index_select(0, kept_positions(keep)), left)
        loss = aggregator_loss(output, bags.labels, left, self.instance_stream_weight, self.bag_targets)
        return loss + self.consistency_weight * consistency_loss(output.embedding, teacher.embedding, self.temperature)

    @torch.no_grad()
    def ask_teacher(self, bags: BagBatch) -> MILOutput:
        """The teacher's output on whole bags, in evaluation mode."""
        encoder, aggregator = self.teacher.eval()
        return aggregator(self.features_of(encoder, bags), bags.sizes)

    def on_validation_start(self) -> None:
        super().on_validation_start()
        self.memory.finalize()

    def on_train_epoch_end(self) -> None:
        """The range is that of one epoch, also where not every epoch is validated."""
        self.memory.finalize()

    def encode(self, instances: Tensor) -> tuple[Tensor, ...]:
        """Features for the student and for the teacher."""
        pixels = self.preprocess(instances)
        return self.encoder(pixels), self.teacher[0](pixels)

    def predict_encoded(self, encoded: tuple[Tensor, ...], sizes: Tensor) -> dict[str, Prediction]:
        """Bag probabilities, and the reading asked for; attention is scaled by the teacher's range."""
        predictions = {}
        for role, aggregator, features in zip(self.roles, (self.aggregator, self.teacher[1]), encoded, strict=True):
            output: MILOutput = aggregator(features, sizes)
            readings = BagReadings(aggregator, features, sizes, output, output.attention_logits, self.memory)
            predictions[role] = self.predict_role(role, readings)
        return predictions


def consistency_loss(student: Tensor, teacher: Tensor, temperature: float = 0.1) -> Tensor:
    """Soft-target cross-entropy, Eq. 9: softmax(teacher / t) against log-softmax(student), mean over the bags.

    Args:
        student: (B, E) bag embedding of the masked bag.
        teacher: (B, E) bag embedding of the whole bag, without gradient.
        temperature: t of the teacher.
    """
    targets = (teacher.detach() / temperature).softmax(1)
    return -(targets * F.log_softmax(student, 1)).sum(1).mean()
