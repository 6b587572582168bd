"""INS: an instance classifier that learns classes by contrast (Qu et al., 2023, arXiv 2307.02249).

python -m kd_mil.run experiment=ins
"""

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_mil.core.checks import above, at_least, share, whole
from kd_mil.core.errors import UserError
from kd_mil.core.machine.dealing import dealing
from kd_mil.data.batches import BagBatch, InstanceBatch
from kd_mil.methods.base.bag_losses import binary_cross_entropy
from kd_mil.methods.base.bag_method import BagMethod
from kd_mil.methods.base.epoch_notes import EpochNotes
from kd_mil.methods.base.method import ModuleFactory
from kd_mil.methods.base.weight_average import follow
from kd_mil.methods.ins.key_queue import KeyQueue
from kd_mil.methods.ins.label_table import LabelTable
from kd_mil.methods.ins.losses import class_contrast, instance_contrast
from kd_mil.methods.ins.prototypes import Prototypes
from kd_mil.models.aggregators.pooling import positive_margin
from kd_mil.models.outputs import Prediction, max_pooled
from kd_mil.models.segments import segment_logsumexp


class INS(BagMethod):
    """Instances of negative bags are negative; those of positive bags find their class by the company they keep.

    Two views of each instance go through the network and through its moving average. During the warm-up the classifier
    learns bag labels, and every instance is drawn to its other view alone. Then it is drawn to all that the classifier
    takes for the same class; the nearer of two class prototypes moves its soft label, and the classifier learns the
    soft labels. There is no teacher. A bag is as positive as its most positive instance.

    Args:
        instance_shape: (C, H, W) or (D,) of one instance.
        num_classes: 2.
        encoder, student_head: factories of the network and its classifier.
        projection: width of the embedding that is contrasted, behind one hidden layer of the encoder's width.
        queue: keys of earlier instances that are contrasted with.
        momentum: of the moving average, per step.
        prototype_momentum: of the class prototypes, per instance.
        temperature: of the similarities.
        contrast_weight: of the contrast beside 1 for the soft labels.
        bag_weight: of the loss of whole bags, which have steps of their own before the instances; 0 for none.
        warm_up: epochs with bag labels, in which soft labels do not move.
        label_start: soft label of instances of positive bags before it moves.
        label_momentum: of the soft labels, per epoch, in the first and after the last epoch; between them a line.
        view_dropout: share of values set to 0 in each view of feature vectors. Images differ by augmentation.
        **training: preprocess, optimizer, gradient_clip, seed of `BagMethod`.

    Raises:
        UserError: more than two classes, or a setting outside its range.
    """

    def __init__(
        self,
        instance_shape: tuple[int, ...],
        num_classes: int,
        encoder: ModuleFactory,
        student_head: ModuleFactory,
        projection: int = 128,
        queue: int = 8192,
        momentum: float = 0.999,
        prototype_momentum: float = 0.9,
        temperature: float = 0.07,
        contrast_weight: float = 0.5,
        bag_weight: float = 0.5,
        warm_up: int = 3,
        label_start: float = 0.5,
        label_momentum: tuple[float, float] = (0.95, 0.8),
        view_dropout: float = 0.2,
        **training: Any,
    ) -> None:
        super().__init__(num_classes=num_classes, **training)
        if num_classes != 2:
            raise UserError(f"method=ins is binary, but the data has {num_classes} classes")
        whole("method.projection", projection, 1)
        share("method.momentum", momentum)
        above("method.temperature", temperature)
        for name, value in {"contrast_weight": contrast_weight, "bag_weight": bag_weight, "warm_up": warm_up}.items():
            at_least(f"method.{name}", value, 0)
        for end in label_momentum:
            share("method.label_momentum", end)
        share("method.view_dropout", view_dropout, one=False)
        self.encoder: nn.Module = encoder(instance_shape=tuple(instance_shape))
        width: Any = self.encoder.out_features
        self.student_head = student_head(in_features=width, num_classes=num_classes)
        self.projector = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, projection))
        self.twin = copy.deepcopy(nn.Sequential(self.encoder, self.projector)).requires_grad_(False)
        self.queue, self.table = KeyQueue(queue, projection), LabelTable(label_start)
        self.prototypes = Prototypes(projection, prototype_momentum)
        self.momentum, self.temperature, self.warm_up = momentum, temperature, warm_up
        self.contrast_weight, self.bag_weight = contrast_weight, bag_weight
        self.label_momentum, self.view_dropout = label_momentum, view_dropout
        self.notes = EpochNotes()
        self.train_views = ("bags", "instances") if bag_weight else ("instances",)

    def parts(self) -> list[nn.Module]:
        return [self.encoder, self.student_head, self.projector]

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if stage == "fit":
            bags = self.trainer.datamodule.bags  # type: ignore[attr-defined]
            self.table.allocate((bags.labels[bags.bag_of_instance] > 0).to(self.device))
            self.keep_of_epoch()

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        self.notes.clear()

    def training_step(self, batch: BagBatch | InstanceBatch, batch_idx: int) -> None:
        encoder, head, projector = self.optimizer_list()
        if isinstance(batch, BagBatch):
            loss = self.bag_loss(batch)
            self.step_optimizers(self.bag_weight * loss, encoder, head)
            self.log_loss("bags", loss, len(batch.sizes))
            return
        labels, contrast = self.instance_losses(batch)
        loss = labels + self.contrast_weight * contrast
        self.step_optimizers(loss, encoder, head, projector)
        self.log_loss("model", loss, len(batch.labels), labels=labels, contrast=contrast)

    def bag_loss(self, bags: BagBatch) -> Tensor:
        """Cross-entropy of bags, each as positive as the smooth maximum log mean exp of its instances' log-odds."""
        with dealing(bags.share) as deal:
            logits = deal.gather(self.student_head(self.encoder(self.preprocess(bags.instances, bags.sizes))))
        margins = positive_margin(logits)
        smooth = segment_logsumexp(margins, bags.sizes) - bags.sizes.to(margins).log()
        return binary_cross_entropy(smooth, bags.labels.to(smooth), bags.labels, self.bag_targets)

    def instance_losses(self, instances: InstanceBatch) -> tuple[Tensor, Tensor]:
        """Losses of soft labels and of contrast; moves prototypes, labels and queue on."""
        ids, in_positive_bag = instances.instance_ids, instances.labels > 0
        with dealing(instances.share) as deal:
            features = self.encoder(self.view(instances.instances))
            logits = deal.gather(self.student_head(features))
            queries = deal.gather(unit(self.projector(features)))
            keys = deal.gather(self.keys_of(self.view(instances.instances)))
        called = in_positive_bag & (positive_margin(logits.detach()) > 0)
        near = in_positive_bag & self.prototypes.nearest(queries.detach())
        self.note(ids, queries.detach(), called, near)
        contrast = self.contrast(queries, keys, called)
        self.remember(ids, keys, called)
        labels = (in_positive_bag if self.warming_up else self.table.positive[ids]).to(logits)
        self.notes.student_step(instances, labels, logits)
        learned = binary_cross_entropy(positive_margin(logits), labels, instances.labels, self.bag_targets)
        return learned, contrast

    @property
    def warming_up(self) -> bool:
        return self.current_epoch < self.warm_up

    def contrast(self, queries: Tensor, keys: Tensor, positive: Tensor) -> Tensor:
        """Contrast of M instances with each other and with the queue."""
        with torch.autocast(queries.device.type, enabled=False):
            if self.warming_up:
                return instance_contrast(queries, keys, self.queue.keys, self.temperature)
            others, classes = torch.cat([keys, self.queue.keys]), torch.cat([positive, self.queue.positive])
            return class_contrast(queries, positive, others, classes, self.temperature)

    def note(self, ids: Tensor, queries: Tensor, called: Tensor, near: Tensor) -> None:
        """Move soft labels, after the warm-up, and prototypes; in the order of ids, which is that of no rank."""
        order = ids.argsort()
        if not self.warming_up:
            self.table.update(ids, near, self.keep_of_epoch())
        self.prototypes.update(queries[order], called[order])

    def remember(self, ids: Tensor, keys: Tensor, called: Tensor) -> None:
        """Add keys to the queue, likewise ordered."""
        order = ids.argsort()
        self.queue.add(keys[order], called[order])

    def keep_of_epoch(self) -> float:
        """Weight of a soft label as it was, in this epoch.

        Raises:
            UserError: one that changes, in a run without an end.
        """
        first, last = self.label_momentum
        if first == last:
            return first
        if self.run_epochs in (None, -1):
            raise UserError(f"method.label_momentum={[first, last]} needs trainer.max_epochs, or two equal values")
        return first + (last - first) * self.current_epoch / self.run_epochs

    def view(self, instances: Tensor) -> Tensor:
        """Instances as the networks see them, augmented anew in each call."""
        seen = self.preprocess(instances)
        return F.dropout(seen, self.view_dropout) if seen.dim() == 2 else seen

    @torch.no_grad()
    def keys_of(self, view: Tensor) -> Tensor:
        """Embeddings (M, E) by the moving average, after it has followed the network."""
        follow(self.twin, (self.encoder, self.projector), self.momentum)
        return unit(self.twin(view))

    def encode(self, instances: Tensor) -> tuple[Tensor, ...]:
        return (self.encoder(self.preprocess(instances)),)

    def predict_encoded(self, encoded: tuple[Tensor, ...], sizes: Tensor) -> dict[str, Prediction]:
        probs = self.student_head(*encoded).double().softmax(1)
        return {"model": Prediction(max_pooled(probs, sizes), probs[:, 1], probs[:, 1])}


def unit(embeddings: Tensor) -> Tensor:
    """Embeddings (M, E) scaled to unit length, in float32 at least."""
    return F.normalize(embeddings.to(torch.promote_types(embeddings.dtype, torch.float32)), dim=1)
