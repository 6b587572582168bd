"""Base of the methods on bags: pixel statistics, evaluation without padding, selection by bag labels only."""

from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from kd_mil.core.distributed import sync_batchnorm_statistics
from kd_mil.data.batches import BagBatch
from kd_mil.evaluation.metrics import BAG_METRICS, Scores, bag_scores, instance_class_scores, instance_scores
from kd_mil.evaluation.tables import PredictionTables, Rows, prediction_rows
from kd_mil.evaluation.thresholds import youden_threshold
from kd_mil.evaluation.ties import without_rounding
from kd_mil.methods.base.bag_losses import bag_loss
from kd_mil.methods.base.method import Method, refuse_nan
from kd_mil.models.outputs import MILOutput, Prediction, critical_logits
from kd_mil.models.preprocess import Preprocess

STATISTICS_SAMPLE = 20_000


class BagMethod(Method):
    """Base of every method on bags: a method adds what its roles predict for a batch of bags.

    Args:
        preprocess: from stored instances to encoder input.
        num_classes: C >= 2.
        **training: optimizer, gradient_clip, seed of `Method`.
    """

    train_views: tuple[str, ...] = ("bags",)
    """Views of the training data, in the order in which one epoch shows them: `bags`, `instances`."""

    bag_thresholds: Tensor

    def __init__(self, preprocess: Preprocess, num_classes: int = 2, **training: Any) -> None:
        super().__init__(**training)
        self.preprocess, self.num_classes = preprocess, num_classes
        self.register_buffer("bag_thresholds", torch.full((len(self.roles),), 0.5, dtype=torch.float64))
        self._bag_rows, self._instance_rows = Rows("bag"), Rows("instance")

    def predict_bags(self, bags: BagBatch) -> dict[str, Prediction]:
        """What each role says about a batch of bags; called in eval mode without gradient."""
        return self.predict_encoded(self.encode(bags.instances), bags.sizes)

    def encode(self, instances: Tensor) -> tuple[Tensor, ...]:
        """All that bags need of instances (M, ...), each taken by itself: tensors (M, E), one for each encoder.

        A slide whose pixels do not fit in memory is encoded piece by piece, and the pieces are laid end to end.
        """
        raise NotImplementedError

    def predict_encoded(self, encoded: tuple[Tensor, ...], sizes: Tensor) -> dict[str, Prediction]:
        """What each role says about B packed bags with N instances, from what `encode` made of them."""
        raise NotImplementedError

    @property
    def default_monitor(self) -> str:
        return f"val/{self.roles[0]}/bag_loss"

    def selectable(self, role: str) -> tuple[str, ...]:
        """Scores of bags: instance labels select nothing."""
        binary = self.num_classes == 2
        return tuple(f"bag_{name}" for name in BAG_METRICS if binary or not name.endswith("_tuned"))

    def setup(self, stage: str) -> None:
        """Pixel statistics of the training data."""
        super().setup(stage)
        if stage != "fit":
            return
        if self.preprocess.standardise:
            self.preprocess.fit(self.training_sample())
        if not (self.trainer.datamodule.bags.instance_labels >= 0).any():  # type: ignore[attr-defined]
            rank_zero_only(print)("no instance labels: instance scores are left out")

    def training_sample(self) -> Tensor:
        """Stored training instances (M, ...), always the same; fewer where they are large."""
        splits = self.trainer.datamodule.splits  # type: ignore[attr-defined]
        return splits.bags.sample(splits.bags.instances_of(splits.train), STATISTICS_SAMPLE)

    def on_validation_start(self) -> None:
        sync_batchnorm_statistics(self)

    def collect(self, bags: BagBatch) -> None:
        rows = prediction_rows(bags, self.predict_bags(bags))
        self._bag_rows.add(rows.bags)
        self._instance_rows.add(rows.instances)

    def gather(self) -> PredictionTables:
        bags = self._bag_rows.collect()
        bags |= {name: without_rounding(column) for name, column in bags.items() if name.endswith("/probs")}
        return PredictionTables(bags, self._instance_rows.collect())

    def score_role(self, stage: str, role: str) -> Scores | None:
        """Scores of bags, at 0.5 and at the threshold that validation chose, and of instances with a known label."""
        bags, instances = self.tables[stage]
        if f"{role}/probs" not in bags:
            return None
        probs, labels, number = bags[f"{role}/probs"], bags["label"], self.roles.index(role)
        refuse_nan(role, probs)
        if stage == "val" and probs.shape[1] == 2:
            self.bag_thresholds[number] = youden_threshold(probs[:, 1], labels)
        threshold, of = float(self.bag_thresholds[number]), f"{stage}/{role}"
        scores = bag_scores(probs, labels, threshold, of=f"{of} bags") | {"bag_threshold": threshold}
        known, of = instances["label"], f"{of} instances"
        if not (known >= 0).any():
            return scores
        scores |= instance_scores(instances[f"{role}/probs"], instances[f"{role}/scores"], known, of=of)
        if f"{role}/class_probs" in instances:
            scores |= instance_class_scores(instances[f"{role}/class_probs"], known, of=of)
        return scores


def aggregator_loss(output: MILOutput, labels: Tensor, sizes: Tensor, instance_stream_weight: float) -> Tensor:
    """Loss of bags with labels (B,): of the bag and instance streams, plus what the aggregator adds to it."""
    loss = bag_loss(output.bag_logits, labels, critical_logits(output, sizes), instance_stream_weight)
    return loss if output.auxiliary_loss is None else loss + output.auxiliary_loss(labels)
