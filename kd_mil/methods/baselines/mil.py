"""Any aggregator on its own: the baseline rows of every table, and the teacher WENO starts from.

python -m kd_mil.run experiment=mil_dsmil
"""

from typing import Any

import torch
from torch import Tensor, nn

from kd_mil.core.checks import share
from kd_mil.data.batches import BagBatch
from kd_mil.methods.base.attention_memory import AttentionMemory, attention_pseudo_labels
from kd_mil.methods.base.bag_method import BagMethod, aggregator_loss
from kd_mil.methods.base.method import ModuleFactory
from kd_mil.models.outputs import MILOutput, Prediction, class_scores


class MIL(BagMethod):
    """Encoder and aggregator trained on bag labels; attention is its only word on instances.

    Args:
        instance_shape: (C, H, W) or (D,) of one instance.
        num_classes: C >= 2; class 0 is the negative one.
        encoder, aggregator: factories of the two parts.
        instance_stream_weight: share of the instance stream in the loss, where the aggregator has one.
        **training: preprocess, optimizer, gradient_clip, seed of `BagMethod`.
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
        super().__init__(num_classes=num_classes, **training)
        share("method.instance_stream_weight", instance_stream_weight)
        self.encoder = encoder(instance_shape=tuple(instance_shape))
        self.aggregator = aggregator(in_features=self.encoder.out_features, num_classes=num_classes)
        self.instance_stream_weight = instance_stream_weight
        self.memory = AttentionMemory(classes=None if num_classes == 2 else num_classes - 1)

    def parts(self) -> list[nn.Module]:
        return [self.encoder, self.aggregator]

    def training_step(self, bags: BagBatch, batch_idx: int) -> None:
        output: MILOutput = self.aggregator(self.encoder(self.preprocess(bags.instances, bags.sizes)), bags.sizes)
        self.memory.record_range(self.scores_of(output), bags.bag_indices.repeat_interleave(bags.sizes))
        loss = aggregator_loss(output, bags.labels, bags.sizes, self.instance_stream_weight)
        self.step_optimizers(loss, *self.optimizer_list())
        self.log_loss("model", loss, len(bags.sizes))

    def on_validation_start(self) -> None:
        super().on_validation_start()
        self.memory.finalize()

    def on_train_epoch_end(self) -> None:
        """The range is that of one epoch, also where not every epoch is validated."""
        self.memory.finalize()

    def encode(self, instances: Tensor) -> tuple[Tensor, ...]:
        return (self.encoder(self.preprocess(instances)),)

    def predict_encoded(self, encoded: tuple[Tensor, ...], sizes: Tensor) -> dict[str, Prediction]:
        """Bag probabilities, and attention scaled by its range over the training set as instance probabilities."""
        output: MILOutput = self.aggregator(*encoded, sizes)
        scores = self.scores_of(output)
        probs = attention_pseudo_labels(scores, torch.ones_like(scores), self.memory.low, self.memory.high)
        by_class = None
        if probs.dim() == 2:
            positive = probs.amax(1)
            if output.class_attention_logits is not None:
                by_class = torch.cat([1 - positive[:, None], probs], 1)
            probs, scores = positive, output.attention_logits
        bag_probs = output.bag_logits.double().softmax(1)
        return {"model": Prediction(bag_probs, probs, scores, output.attention, by_class)}

    def scores_of(self, output: MILOutput) -> Tensor:
        """Attention logits (N,); with more than two classes one column for each positive class, (N, C - 1)."""
        return output.attention_logits if self.num_classes == 2 else class_scores(output, self.num_classes)
