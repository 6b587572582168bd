"""What the methods on bags share: pixel statistics, evaluation without padding, selection by bag labels only."""

import math
from typing import Any

import torch
from torch import Tensor

from kd_mil.core.distributed import sync_batchnorm_statistics
from kd_mil.core.errors import UserError
from kd_mil.data.batches import BagBatch
from kd_mil.evaluation.metrics import BAG_METRICS, bag_scores, instance_class_scores, instance_scores
from kd_mil.evaluation.tables import PredictionCollector, PredictionTables
from kd_mil.evaluation.thresholds import youden_threshold
from kd_mil.methods.base.bag_losses import bag_loss
from kd_mil.methods.base.method import Method
from kd_mil.models.outputs import MILOutput, Prediction, critical_logits
from kd_mil.models.preprocess import Preprocess

STATISTICS_SAMPLE = 20_000
STATISTICS_VALUES = 2**27
"""Numbers read for the statistics of pixels: half a GiB, 170 tiles of 512 pixels."""


class BagMethod(Method):
    """Base of every method on bags: a method adds what its roles predict for a batch of bags.

    Args:
        preprocess: from stored instances to encoder input.
        **training: optimizer, gradient_clip, seed of `Method`.
    """

    train_views: tuple[str, ...] = ("bags",)
    """Views of the training data, in the order in which one epoch shows them: `bags`, `instances`."""

    bag_thresholds: Tensor

    def __init__(self, preprocess: Preprocess, **training: Any) -> None:
        super().__init__(**training)
        self.preprocess = preprocess
        self.register_buffer("bag_thresholds", torch.full((len(self.roles),), 0.5, dtype=torch.float64))
        self.tables: dict[str, PredictionTables] = {}
        self._collector = PredictionCollector()

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

    def check_monitor(self, monitor: str) -> None:
        """Refuse to select by anything but validation bags: instance labels select nothing, test data neither.

        Raises:
            UserError: naming the form a monitor has.
        """
        stage, role, metric = [*monitor.split("/"), "", ""][:3]
        if stage != "val" or role not in self.roles or not metric.startswith("bag_"):
            raise UserError(
                f"monitor={monitor}: selection reads validation bags only, "
                f"as val/ROLE/bag_METRIC with ROLE one of {', '.join(self.roles)}"
            )
        if metric.removeprefix("bag_") not in BAG_METRICS:
            raise UserError(f"monitor={monitor}: there is no {metric}, choose bag_{', bag_'.join(BAG_METRICS)}")

    def setup(self, stage: str) -> None:
        if stage == "fit" and self.preprocess.standardise:
            self.preprocess.fit(self.training_sample())

    def training_sample(self) -> Tensor:
        """Stored training instances (M, ...), always the same; fewer where they are large."""
        splits = self.trainer.datamodule.splits  # type: ignore[attr-defined]
        instances = splits.bags.instances_of(splits.train)
        generator = torch.Generator().manual_seed(0)
        count = max(1, min(STATISTICS_SAMPLE, STATISTICS_VALUES // math.prod(splits.bags.instance_shape)))
        sample = instances[torch.randperm(len(instances), generator=generator)[:count]]
        return splits.bags.instance_batch(sample.sort().values).instances

    def on_validation_start(self) -> None:
        sync_batchnorm_statistics(self)

    def validation_step(self, bags: BagBatch, batch_idx: int) -> None:
        self._collector.add(bags, self.predict_bags(bags))

    def test_step(self, bags: BagBatch, batch_idx: int) -> None:
        self._collector.add(bags, self.predict_bags(bags))

    def on_validation_epoch_end(self) -> None:
        tables = self._collector.collect()
        self._check_finite(tables)
        if tables.bags[f"{self.roles[0]}/probs"].shape[1] == 2:
            for role in tables.roles:
                chosen = youden_threshold(tables.bags[f"{role}/probs"][:, 1], tables.bags["label"])
                self.bag_thresholds[self.roles.index(role)] = chosen
        self._score("val", tables)

    def _check_finite(self, tables: PredictionTables) -> None:
        for role in tables.roles:
            if not tables.bags[f"{role}/probs"].isfinite().all():
                raise UserError(f"training diverged, the {role} predicts NaN: lower optimizer.lr")

    def on_test_epoch_end(self) -> None:
        self._score("test", self._collector.collect())

    def _score(self, stage: str, tables: PredictionTables) -> None:
        self.tables[stage] = tables
        bags, instances = tables
        scores: dict[str, float] = {}
        for role, threshold in zip(self.roles, self.bag_thresholds.tolist(), strict=True):
            of = f"{stage}/{role}"
            if role not in tables.roles:  # trains later; undefined scores select no checkpoint
                self.log_dict({f"{of}/{name}": math.nan for name in scores}, batch_size=1)
                continue
            scores = bag_scores(bags[f"{role}/probs"], bags["label"], threshold, of=f"{of} bags")
            scores["bag_threshold"] = threshold
            scores |= instance_scores(
                instances[f"{role}/probs"], instances[f"{role}/scores"], instances["label"], of=f"{of} instances"
            )
            if f"{role}/class_probs" in instances:
                scores |= instance_class_scores(
                    instances[f"{role}/class_probs"], instances["label"], of=f"{of} instances"
                )
            named = {f"{of}/{name}": value for name, value in scores.items()}
            self.exact_scores |= named
            self.log_dict(named, batch_size=1)


def aggregator_loss(output: MILOutput, labels: Tensor, sizes: Tensor, instance_stream_weight: float) -> Tensor:
    """Loss of bags with labels (B,): of the bag and instance streams, plus what the aggregator adds to it."""
    loss = bag_loss(output.bag_logits, labels, critical_logits(output, sizes), instance_stream_weight)
    return loss if output.auxiliary_loss is None else loss + output.auxiliary_loss(labels)
