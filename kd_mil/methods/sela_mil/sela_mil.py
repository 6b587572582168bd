"""SeLa-MIL: an instance classifier that labels its own instances by transport (2024, arXiv 2408.04813).

python -m kd_mil.run experiment=sela_mil
"""

from typing import Any

import torch
from torch import Tensor, nn

from kd_mil.core.checks import above, at_least
from kd_mil.core.errors import UserError
from kd_mil.core.machine.dealing import dealing
from kd_mil.data.batches import BagBatch, InstanceBatch
from kd_mil.methods.base.bag_losses import binary_cross_entropy
from kd_mil.methods.base.bag_method import BagMethod
from kd_mil.methods.base.epoch_notes import EpochNotes
from kd_mil.methods.base.instance_scores import owners_of_instances, scores_of_instances
from kd_mil.methods.base.method import ModuleFactory
from kd_mil.methods.base.positive_mass import PositiveMass
from kd_mil.methods.base.transport import keep_winners, transport_labels
from kd_mil.models.aggregators.pooling import positive_margin
from kd_mil.models.outputs import Prediction, max_pooled


class SeLaMIL(BagMethod):
    """Semi-supervised learning in which all labelled instances, those of negative bags, are negative.

    Once an epoch the network labels the instances of positive bags anew: a share of them, `mass`, is positive, and one
    in each bag at least. A bag is as positive as its most positive instance. There is no teacher.

    Args:
        instance_shape: (C, H, W) or (D,) of one instance.
        num_classes: 2.
        encoder, student_head: factories of the two parts.
        mass: share of positive instances in positive bags, a number or `mixture`, with its limit `largest_mass` and its
            `momentum`: `PositiveMass`. With 1 every instance inherits its bag's label: the naive instance classifier.
        sharpness: of the labels, on the network's own log-odds; 1 keeps its calibration.
        keep_winner: whether each positive bag keeps one positive instance.
        warm_up: epochs with bag labels.
        **training: preprocess, optimizer, gradient_clip, seed of `BagMethod`.

    Raises:
        UserError: more than two classes, or a setting outside its range.
    """

    train_views = ("instances",)

    def __init__(
        self,
        instance_shape: tuple[int, ...],
        num_classes: int,
        encoder: ModuleFactory,
        student_head: ModuleFactory,
        mass: float | str = 0.3,
        sharpness: float = 1.0,
        keep_winner: bool = True,
        warm_up: int = 1,
        largest_mass: float = 0.5,
        momentum: float = 0.5,
        **training: Any,
    ) -> None:
        super().__init__(num_classes=num_classes, **training)
        if num_classes != 2:
            raise UserError(f"method=sela_mil is binary, but the data has {num_classes} classes")
        above("method.sharpness", sharpness)
        at_least("method.warm_up", warm_up, 0)
        self.encoder = encoder(instance_shape=tuple(instance_shape))
        self.student_head = student_head(in_features=self.encoder.out_features, num_classes=num_classes)
        self.mass = PositiveMass(mass, largest_mass, momentum, "method")
        self.sharpness, self.keep_winner, self.warm_up = sharpness, keep_winner, warm_up
        self._labels: Tensor | None = None
        self.notes = EpochNotes()

    def parts(self) -> list[nn.Module]:
        return [self.encoder, self.student_head]

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        self.notes.clear()
        self._labels = None

    def training_step(self, instances: InstanceBatch, batch_idx: int) -> None:
        if self._labels is None:
            self._labels = self.labels_of_epoch()
        with dealing(instances.share) as deal:
            logits = deal.gather(self.student_head(self.encoder(self.preprocess(instances.instances))))
        labels = self._labels[instances.instance_ids]
        self.notes.student_step(instances, labels, logits)
        loss = binary_cross_entropy(positive_margin(logits), labels, instances.labels, self.bag_targets)
        self.step_optimizers(loss, *self.optimizer_list())
        self.log_loss("model", loss, len(instances.labels))

    def labels_of_epoch(self) -> Tensor:
        """Labels (N,) of all instances of the data set, of which the training instances matter: 0 in negative bags."""
        splits = self.trainer.datamodule.splits  # type: ignore[attr-defined]
        bags = splits.bags
        labels = (bags.labels[bags.bag_of_instance] > 0).to(self.device, torch.get_default_dtype())
        if self.current_epoch < self.warm_up:
            return labels
        positive_bags = splits.train[bags.labels[splits.train] > 0]
        scores = self.margins(positive_bags)
        found = transport_labels(scores, self.mass_of_epoch(), self.sharpness)
        if self.keep_winner:
            found = keep_winners(found, scores, owners_of_instances(self, positive_bags))
        labels[bags.instances_of(positive_bags).to(self.device)] = found
        return labels

    def mass_of_epoch(self) -> float:
        """Share of positive instances that this epoch's labels assume."""
        if not self.mass.needs_validation:
            return min(self.mass.scheduled(self.current_epoch, self.run_epochs), 1 - 1e-6)
        splits = self.trainer.datamodule.splits  # type: ignore[attr-defined]
        scores, owners = self.margins(splits.val), owners_of_instances(self, splits.val)
        positive = splits.bags.labels.to(self.device)[owners] > 0
        mean_size = float(splits.bags.sizes[splits.train].double().mean())
        return self.mass.estimated(scores[positive], scores[~positive], mean_size)

    def margins(self, bag_indices: Tensor) -> Tensor:
        """Log-odds (M,) of all instances of the given bags, in evaluation mode."""

        def margin(bags: BagBatch) -> Tensor:
            return positive_margin(self.student_head(*self.encode(bags.instances)))[:, None]

        return scores_of_instances(self, bag_indices, margin).squeeze(1)

    def encode(self, instances: Tensor) -> tuple[Tensor, ...]:
        return (self.encoder(self.preprocess(instances)),)

    def predict_encoded(self, encoded: tuple[Tensor, ...], sizes: Tensor) -> dict[str, Prediction]:
        probs = self.student_head(*encoded).double().softmax(1)
        return {"model": Prediction(max_pooled(probs, sizes), probs[:, 1], probs[:, 1])}
