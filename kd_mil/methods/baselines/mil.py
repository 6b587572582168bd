"""Any aggregator on its own: the baseline rows of every table, and the teacher WENO starts from.

python -m kd_mil.run experiment=mil_dsmil
"""

from typing import Any

from torch import Tensor, nn

from kd_mil.core.checks import share
from kd_mil.data.batches import BagBatch
from kd_mil.methods.base.attention_memory import AttentionMemory
from kd_mil.methods.base.bag_method import BagMethod, aggregator_loss
from kd_mil.methods.base.method import ModuleFactory
from kd_mil.methods.base.readings import BagReadings, check_instance_score
from kd_mil.models.outputs import MILOutput, Prediction, class_scores
from kd_mil.models.segments import per_instance


class MIL(BagMethod):
    """Encoder and aggregator trained on bag labels; what it says of instances depends on how it is read.

    Args:
        instance_shape: (C, H, W) or (D,) of one instance.
        num_classes: C >= 2; class 0 is the negative one.
        encoder, aggregator: factories of the two parts.
        instance_stream_weight: share of the instance stream in the loss, where the aggregator has one.
        as_many_updates_as_weno: follow the bags of each epoch by as many more steps on bags as WENO's student takes on
            their instances: its encoder is moved as often, by bag labels alone. The control of what a student gives.
        **training: preprocess, optimizer, gradient_clip, seed, instance_score of `BagMethod`.

    Raises:
        UserError: a setting out of range, or an `instance_score` that the aggregator has not.

    Examples:
        >>> import torch
        >>> import kd_mil
        >>> method = MIL(
        ...     instance_shape=(16,),
        ...     num_classes=2,
        ...     encoder=kd_mil.FeatureProjector,
        ...     aggregator=kd_mil.DSMIL,
        ...     preprocess=kd_mil.Preprocess(),
        ...     optimizer=torch.optim.AdamW,
        ... )
        >>> said = method.predict(torch.randn(30, 16))["model"]  # of one bag of 30 instances
        >>> said.bag_probs.shape, said.instance_probs.shape
        (torch.Size([1, 2]), torch.Size([30]))
    """

    chooses_reading = True

    def __init__(
        self,
        instance_shape: tuple[int, ...],
        num_classes: int,
        encoder: ModuleFactory,
        aggregator: ModuleFactory,
        instance_stream_weight: float = 0.5,
        as_many_updates_as_weno: bool = False,
        **training: Any,
    ) -> None:
        super().__init__(num_classes=num_classes, **training)
        share("method.instance_stream_weight", instance_stream_weight)
        self.encoder = encoder(instance_shape=tuple(instance_shape))
        self.aggregator = aggregator(in_features=self.encoder.out_features, num_classes=num_classes)
        check_instance_score(self.instance_score, self.aggregator)
        self.instance_stream_weight = instance_stream_weight
        self.train_views = ("bags", "more_bags") if as_many_updates_as_weno else ("bags",)
        self.memory = AttentionMemory(classes=None if num_classes == 2 else num_classes - 1)

    def parts(self) -> list[nn.Module]:
        return [self.encoder, self.aggregator]

    def training_step(self, bags: BagBatch, batch_idx: int) -> None:
        output: MILOutput = self.aggregator(self.features_of(self.encoder, bags), bags.sizes)
        scores = self.scores_of(output)
        self.memory.record_range(scores, per_instance(bags.bag_indices, bags.sizes, len(scores)))
        loss = aggregator_loss(output, bags.labels, bags.sizes, self.instance_stream_weight, self.bag_targets)
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
        """Bag probabilities, and what the reading asked for makes of the instances."""
        [features] = encoded
        output: MILOutput = self.aggregator(features, sizes)
        by_class = output.class_attention_logits is not None
        scores = self.scores_of(output)
        readings = BagReadings(self.aggregator, features, sizes, output, scores, self.memory, by_class)
        return {"model": self.predict_role("model", readings)}

    def scores_of(self, output: MILOutput) -> Tensor:
        """Attention logits (N,); with more than two classes one column for each positive class, (N, C - 1)."""
        return output.attention_logits if self.num_classes == 2 else class_scores(output, self.num_classes)
