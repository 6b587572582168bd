"""WENO with several positive classes: an extension, NOT part of the paper (arXiv 2210.03664), whose method is binary.

python -m kd_mil.run experiment=weno_multiclass
"""

from typing import Any

import torch
from torch import Tensor

from kd_mil.core.errors import UserError
from kd_mil.core.machine.dealing import dealing
from kd_mil.data.batches import BagBatch, InstanceBatch
from kd_mil.methods.base.attention_memory import AttentionMemory, Normalisation, attention_pseudo_labels
from kd_mil.methods.base.readings import BagReadings, student_prediction
from kd_mil.methods.weno.losses import class_student_loss, class_targets
from kd_mil.methods.weno.weno import WENO
from kd_mil.models.outputs import MILOutput, Prediction, class_scores
from kd_mil.models.segments import per_instance


class MultiClassWENO(WENO):
    """Class-wise attention becomes class-wise soft labels; all else is WENO.

    A bag has one class, 0 the negative one. An instance of a bag of class c > 0 is of class c as far as the attention
    of class c says so, scaled by the range of that attention, and negative otherwise; it is of no other class.
    Instances of negative bags are negative. Aggregators that attend for each class by itself (DSMIL, CLAM-MB) teach
    with that; those with one attention use it for every class.

    HPM hides instances by the student's probability of their bag's class. A bag is as positive as its most positive
    instance. With two classes all of this is WENO itself.

    Args:
        num_classes: C >= 2; class 0 is the negative one.
        **settings: as in `WENO`, with attention from the bank as pseudo-labels, without correction or feedback.
    """

    def __init__(self, instance_shape: tuple[int, ...], num_classes: int, **settings: Any) -> None:
        super().__init__(instance_shape, num_classes, **settings)
        if self.recompute or self.attention_source != "attention" or self.label_kind != "attention":
            raise UserError(
                "method=weno_multiclass needs method.pseudo_labels=attention, attention_from=bank, "
                "attention_source=attention"
            )
        if self.correction.weight or self.feedback.weight:
            raise UserError("method=weno_multiclass has no correction or feedback: set their weights to 0")

    def check_classes(self, num_classes: int) -> None:
        """Any number of classes will do."""

    def new_memory(self, normalisation: Normalisation, num_classes: int) -> AttentionMemory:
        """A range and a score for each positive class."""
        return AttentionMemory(normalisation, keep_scores=True, classes=num_classes - 1)

    def scores_of(self, output: MILOutput) -> Tensor:
        """Teacher scores (N, C - 1) for the positive classes."""
        return class_scores(output, self.num_classes)

    def student_loss(self, instances: InstanceBatch) -> Tensor:
        """Eq. 13-15 with the attention of the bag's class."""
        with dealing(instances.share) as deal:
            features = (self.student_encoder or self.encoder)(self.preprocess(instances.instances))
            logits = deal.gather(self.student_head(features))
        pseudo_labels = (instances.labels > 0).to(features.dtype)
        if self.distillation:
            column = (instances.labels - 1).clamp_min(0)[:, None]
            scores = self.memory.scores[instances.instance_ids].gather(1, column).squeeze(1)
            low, high = (
                side.expand(len(scores), -1).gather(1, column).squeeze(1)
                for side in self.memory.range_of(instances.bag_indices)
            )
            pseudo_labels = attention_pseudo_labels(scores, instances.labels, low, high, self.memory.per_bag)
        self.notes.student_step(instances, pseudo_labels, logits)
        targets = class_targets(pseudo_labels, instances.labels, self.num_classes)
        return class_student_loss(logits, targets, self.negative_weight)

    def predict_encoded(self, encoded: tuple[Tensor, ...], sizes: Tensor) -> dict[str, Prediction]:
        _, aggregator, head, *_ = self.evaluated_parts
        output = aggregator(encoded[0], sizes)
        scores = self.scores_of(output)
        readings = BagReadings(aggregator, encoded[0], sizes, output, scores, self.memory, by_class=True)
        student = student_prediction(head(encoded[-1]), output.bag_logits, sizes, by_class=True)
        return {"teacher": self.predict_role("teacher", readings), "student": student}

    @torch.no_grad()
    def _student_probs(self, features: Tensor, bags: BagBatch) -> Tensor:
        """Student probability (N,) of the class of an instance's bag; of negative bags HPM drops nothing."""
        if self.student_encoder is not None:
            features = self.features_of(self.student_encoder, bags)
        self.student_head.eval()
        probs = self.student_head(features).softmax(1)
        self.student_head.train()
        return probs.gather(1, per_instance(bags.labels, bags.sizes, len(probs))[:, None]).squeeze(1)
