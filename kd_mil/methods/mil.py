"""Any aggregator on its own: the baseline rows of every table, and the teacher WENO starts from."""

from typing import Any

import torch
from torch import nn

from kd_mil.data.bag import BagBatch
from kd_mil.losses.mil import bag_loss
from kd_mil.losses.weno import attention_pseudo_labels
from kd_mil.methods.bag_distiller import BagDistiller
from kd_mil.methods.base import ModuleFactory, check_share
from kd_mil.models.memory import AttentionMemory
from kd_mil.models.outputs import MILOutput, Prediction, critical_logits


class MIL(BagDistiller):
    """Encoder and aggregator trained on bag labels; attention is its only word on instances.

    Args:
        instance_shape: (C, H, W) or (D,) of one instance.
        num_classes: C >= 2; class 0 is the negative one.
        encoder, aggregator: factories of the two parts.
        instance_stream_weight: share of the instance stream in the loss, where the aggregator has one.
        **training: preprocess, optimizer, gradient_clip, seed of `BagDistiller`.
    """

    def __init__(
        self,
        instance_shape: tuple[int, ...],
        num_classes: int,
        encoder: ModuleFactory,
        aggregator: ModuleFactory,
        instance_stream_weight: float = 0.5,
        **training: Any,
    ) -> None:
        super().__init__(**training)
        check_share("method.instance_stream_weight", instance_stream_weight)
        self.encoder = encoder(instance_shape=tuple(instance_shape))
        self.aggregator = aggregator(in_features=self.encoder.out_features, num_classes=num_classes)
        self.instance_stream_weight = instance_stream_weight
        self.memory = AttentionMemory()

    def parts(self) -> list[nn.Module]:
        return [self.encoder, self.aggregator]

    def training_step(self, bags: BagBatch, batch_idx: int) -> None:
        output: MILOutput = self.aggregator(self.encoder(self.preprocess(bags.instances)), bags.sizes)
        self.memory.record_range(output.attention_logits, bags.bag_indices.repeat_interleave(bags.sizes))
        loss = bag_loss(
            output.bag_logits, bags.labels, critical_logits(output, bags.sizes), self.instance_stream_weight
        )
        self.descend(loss, *self.optimizer_list())
        self.log_loss("teacher", loss, batch_size=len(bags.sizes))

    def on_validation_start(self) -> None:
        super().on_validation_start()
        self.memory.settle()

    def predict_bags(self, bags: BagBatch) -> dict[str, Prediction]:
        """Bag probabilities, and attention scaled by its range over the training set as instance probabilities."""
        output: MILOutput = self.aggregator(self.encoder(self.preprocess(bags.instances)), bags.sizes)
        scores = output.attention_logits
        probs = attention_pseudo_labels(scores, torch.ones_like(scores), self.memory.low, self.memory.high)
        return {"model": Prediction(output.bag_logits.double().softmax(1), probs, scores, output.attention)}
