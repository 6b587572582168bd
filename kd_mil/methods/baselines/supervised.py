"""The fully supervised row of the tables: the only method that may train on instance labels.

python -m kd_mil.run experiment=supervised
"""

from typing import Any

import torch
from torch import Tensor, nn

from kd_mil.core.errors import UserError
from kd_mil.core.machine.dealing import dealing
from kd_mil.data.batches import InstanceBatch
from kd_mil.methods.base.bag_losses import labelled_instance_loss
from kd_mil.methods.base.bag_method import BagMethod
from kd_mil.methods.base.method import ModuleFactory
from kd_mil.models.outputs import Prediction
from kd_mil.models.segments import segment_max


class Supervised(BagMethod):
    """An instance classifier trained on instance labels, its maximum over the bag as bag prediction: an upper bound.

    Args:
        instance_shape: (C, H, W) or (D,) of one instance.
        num_classes: 2.
        encoder, student_head: factories of the two parts.
        **training: preprocess, optimizer, gradient_clip, seed of `BagMethod`.

    Raises:
        UserError: more than two classes, or training instances without any label.
    """

    train_views = ("instances",)

    def __init__(
        self,
        instance_shape: tuple[int, ...],
        num_classes: int,
        encoder: ModuleFactory,
        student_head: ModuleFactory,
        **training: Any,
    ) -> None:
        super().__init__(num_classes=num_classes, **training)
        if num_classes != 2:
            raise UserError(f"method=supervised is binary, but the data has {num_classes} classes")
        self.encoder = encoder(instance_shape=tuple(instance_shape))
        self.student_head = student_head(in_features=self.encoder.out_features, num_classes=num_classes)

    @property
    def learns_from_targets(self) -> bool:
        """Instance labels train it."""
        return False

    def parts(self) -> list[nn.Module]:
        return [self.encoder, self.student_head]

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if stage == "fit":
            splits = self.trainer.datamodule.splits  # type: ignore[attr-defined]
            if not (splits.bags.instance_labels[splits.bags.instances_of(splits.train)] >= 0).any():
                raise UserError("method=supervised needs instance labels, but no training instance has one")

    def training_step(self, instances: InstanceBatch, batch_idx: int) -> None:
        with dealing(instances.share) as deal:
            logits = deal.gather(self.student_head(self.encoder(self.preprocess(instances.instances))))
        loss = labelled_instance_loss(logits, instances.instance_labels)
        self.step_optimizers(loss, *self.optimizer_list())
        self.log_loss("model", loss, len(instances.labels))

    def encode(self, instances: Tensor) -> tuple[Tensor, ...]:
        return (self.encoder(self.preprocess(instances)),)

    def predict_encoded(self, encoded: tuple[Tensor, ...], sizes: Tensor) -> dict[str, Prediction]:
        probs = self.student_head(*encoded).double().softmax(1)[:, 1]
        bag_prob = segment_max(probs, sizes)
        return {"model": Prediction(torch.stack([1 - bag_prob, bag_prob], 1), probs, probs)}
