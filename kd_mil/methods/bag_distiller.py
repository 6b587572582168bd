"""What the methods on bags share: pixel statistics, evaluation without padding, selection by bag labels only."""

from typing import Any

import torch
from torch import Tensor

from kd_mil.data.bag import BagBatch
from kd_mil.distributed import sync_batchnorm_statistics
from kd_mil.errors import UserError
from kd_mil.evaluation.metrics import bag_scores, instance_scores
from kd_mil.evaluation.tables import PredictionCollector, PredictionTables
from kd_mil.evaluation.thresholds import youden_threshold
from kd_mil.methods.base import Distiller
from kd_mil.models.outputs import Prediction
from kd_mil.models.preprocess import Preprocess

STATISTICS_SAMPLE = 20_000


class BagDistiller(Distiller):
    """Base of every method on bags: a method adds what its roles predict for a batch of bags.

    Args:
        preprocess: from stored instances to encoder input.
        **training: optimizer, gradient_clip, seed of `Distiller`.
    """

    train_views: tuple[str, ...] = ("bags",)
    """Views of the training data, in the order in which one epoch shows them: `bags`, `instances`."""

    bag_thresholds: Tensor

    def __init__(self, preprocess: Preprocess, **training: Any) -> None:
        super().__init__(**training)
        self.preprocess = preprocess
        self.register_buffer("bag_thresholds", torch.full((len(self.roles),), 0.5))
        self.tables: dict[str, PredictionTables] = {}
        self._collector = PredictionCollector()

    def predict_bags(self, bags: BagBatch) -> dict[str, Prediction]:
        """What each role says about a batch of bags; called in eval mode without gradient."""
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

    def setup(self, stage: str) -> None:
        if stage == "fit" and self.preprocess.standardise:
            splits = self.trainer.datamodule.splits  # type: ignore[attr-defined]
            instances = splits.bags.instances_of(splits.train)
            generator = torch.Generator().manual_seed(0)
            sample = instances[torch.randperm(len(instances), generator=generator)[:STATISTICS_SAMPLE]]
            self.preprocess.fit(splits.bags.instance_batch(sample.sort().values).instances)

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
            labels = tables.bags["label"]
            chosen = [youden_threshold(tables.bags[f"{role}/probs"][:, 1], labels) for role in self.roles]
            self.bag_thresholds.copy_(torch.tensor(chosen))
        self._score("val", tables)

    def _check_finite(self, tables: PredictionTables) -> None:
        for role in self.roles:
            if not tables.bags[f"{role}/probs"].isfinite().all():
                raise UserError(f"training diverged, the {role} predicts NaN: lower optimizer.lr")

    def on_test_epoch_end(self) -> None:
        self._score("test", self._collector.collect())

    def _score(self, stage: str, tables: PredictionTables) -> None:
        self.tables[stage] = tables
        bags, instances = tables
        for role, threshold in zip(self.roles, self.bag_thresholds.tolist(), strict=True):
            of = f"{stage}/{role}"
            scores = bag_scores(bags[f"{role}/probs"], bags["label"], threshold, of=f"{of} bags")
            scores["bag_threshold"] = threshold
            scores |= instance_scores(
                instances[f"{role}/probs"], instances[f"{role}/scores"], instances["label"], of=f"{of} instances"
            )
            self.log_dict({f"{of}/{name}": value for name, value in scores.items()}, batch_size=1)
