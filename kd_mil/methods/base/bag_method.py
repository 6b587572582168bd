"""Base of the methods on bags: pixel statistics, evaluation without padding, selection by bag labels only."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor, nn

from kd_mil.core.errors import UserError
from kd_mil.core.machine.dealing import dealing
from kd_mil.data.batches import BagBatch
from kd_mil.evaluation.instance_metrics import instance_table_scores
from kd_mil.evaluation.metrics import BAG_METRICS, Scores, bag_scores
from kd_mil.evaluation.scorecard import lesion_scores
from kd_mil.evaluation.tables import PredictionTables, Rows, prediction_rows
from kd_mil.evaluation.thresholds import instance_threshold, youden_threshold
from kd_mil.evaluation.ties import without_rounding
from kd_mil.methods.base.accumulation import AccumulatingMethod
from kd_mil.methods.base.bag_losses import PLAIN, BagTargets, bag_loss
from kd_mil.methods.base.chosen_reading import candidate_columns, settle_reading
from kd_mil.methods.base.method import refuse_nan
from kd_mil.methods.base.operating import OperatingPoints
from kd_mil.methods.base.readings import NAMES, BagReadings, InstanceScore
from kd_mil.methods.base.weight_average import evaluating
from kd_mil.models.outputs import MILOutput, Prediction, critical_logits
from kd_mil.models.preprocess import Preprocess

STATISTICS_SAMPLE = 20_000
PIECE = 4096
"""Instances that are encoded at once by `predict`."""


class BagMethod(AccumulatingMethod):
    """Base of every method on bags: a method adds what its roles predict for a batch of bags.

    Args:
        preprocess: from stored instances to encoder input.
        num_classes: C >= 2.
        instance_score: reading that is the word of bag classifiers on instances. `own` is that of the aggregator's
            authors; `validation` the one that ranks instances of positive validation bags best above those of
            negative ones, chosen again whenever validation bags are scored. Instance classifiers have one word only.
            The default is what checkpoints without this setting meant.
        **training: optimizer, gradient_clip, seed of `Method`.

    Raises:
        UserError: an `instance_score` for a method that has no choice.
    """

    train_views: tuple[str, ...] = ("bags",)
    """Views of the training data, in the order in which one epoch shows them: `bags`, `instances`, `more_bags`."""

    monitors = tuple(f"{unit}_{name}" for unit in ("bag", "case") for name in BAG_METRICS)
    chooses_reading = False
    """Whether the method has bag classifiers that it reads as `instance_score` asks, with `predict_role`."""

    bag_targets: BagTargets = PLAIN
    """Class weights and smoothing of the labels of training bags; see `bag_targets.learn_from`."""
    bag_thresholds: Tensor
    instance_thresholds: Tensor
    """(roles,) like `bag_thresholds`, chosen on the labels of validation bags alone."""
    chosen_readings: Tensor
    """(roles,) position in `NAMES` of what `instance_score=validation` chose, -1 for the aggregator's own."""

    def __init__(
        self, preprocess: Preprocess, num_classes: int = 2, instance_score: InstanceScore = "attention", **training: Any
    ) -> None:
        super().__init__(**training)
        self.preprocess, self.num_classes = preprocess, num_classes
        self.instance_score: InstanceScore = instance_score
        if instance_score != "attention" and not self.chooses_reading:
            name = type(self).__name__
            raise UserError(f"method.instance_score={instance_score}: {name} has one word on instances, leave it out")
        if instance_score == "validation":
            self.register_buffer("chosen_readings", torch.full((len(self.roles),), -1))
        self._with_readings = False
        self.shown_readings: dict[str, str | None] = {}
        """Name of the reading that each role's instance probabilities were in the last evaluation."""
        self.register_buffer("bag_thresholds", torch.full((len(self.roles),), 0.5, dtype=torch.float64))
        self.register_buffer("instance_thresholds", self.bag_thresholds.clone())
        self.operating = OperatingPoints(self.roles)
        self._bag_rows, self._instance_rows = Rows("bag"), Rows("instance")

    def features_of(self, encoder: nn.Module, bags: BagBatch) -> Tensor:
        """Features (N, D) of all instances of a training batch, of which each rank encodes its share."""
        with dealing(bags.share) as deal:
            return deal.gather(encoder(self.preprocess(bags.instances, bags.sizes)))

    def predict_bags(self, bags: BagBatch) -> dict[str, Prediction]:
        """What each role says about a batch of bags; called in eval mode without gradient."""
        return self.predict_encoded(self.encode(bags.instances), bags.sizes)

    def predict(self, bag: Tensor | np.ndarray, readings: bool = False) -> dict[str, Prediction]:
        """What each role says about one bag: instances (N, ...) as the training data stored them; on the CPU.

        `predict(features)["student"].instance_probs` is (N,), `predict(features)["teacher"].bag_probs` (1, C).
        """
        return self.predict_pieces(torch.as_tensor(bag).split(PIECE), readings)

    @torch.inference_mode()
    def predict_pieces(self, pieces: Iterable[Tensor], readings: bool = False) -> dict[str, Prediction]:
        """As `predict`, of a bag cut into pieces (M, ...): only what `encode` makes of them is kept.

        Args:
            pieces: the bag, piece by piece.
            readings: read bag classifiers in every way.
        """
        with evaluating(self):
            encoded = [self.encode(piece.to(self.device, non_blocking=True)) for piece in pieces]
            together = tuple(torch.cat(parts) for parts in zip(*encoded, strict=True))
            predictions = self.predict_encoded(together, torch.tensor([len(together[0])], device=self.device))
            return {role: prediction.on_cpu(readings) for role, prediction in predictions.items()}

    def encode(self, instances: Tensor) -> tuple[Tensor, ...]:
        """All that bags need of instances (M, ...), each taken by itself: tensors (M, E), one for each encoder.

        A slide whose pixels do not fit in memory is encoded piece by piece, and the pieces are laid end to end.
        """
        raise NotImplementedError

    def predict_encoded(self, encoded: tuple[Tensor, ...], sizes: Tensor) -> dict[str, Prediction]:
        """What each role says about B packed bags with N instances, from what `encode` made of them."""
        raise NotImplementedError

    def predict_role(self, role: str, readings: BagReadings) -> Prediction:
        """What a bag classifier says of its bags, and of their instances as `instance_score` asks."""
        name: str = self.instance_score
        if name == "validation":
            chosen = int(self.chosen_readings[self.roles.index(role)])
            name = "own" if chosen < 0 else NAMES[chosen]
        return readings.predict(readings.own if name == "own" else name)

    @property
    def thresholds(self) -> dict[str, float]:
        """Probability of a bag from which on each role calls it positive, chosen on validation bags; 0.5 before."""
        return dict(zip(self.roles, self.bag_thresholds.tolist(), strict=True))

    @property
    def thresholds_of_instances(self) -> dict[str, float]:
        """The same of single instances, chosen on the labels of validation bags."""
        return dict(zip(self.roles, self.instance_thresholds.tolist(), strict=True))

    @property
    def learns_from_targets(self) -> bool:
        """Whether labels of bags, as `bag_targets` has them, train the method."""
        return True

    @property
    def decides(self) -> str:
        """Role whose decision on a bag counts where one is wanted: the one that selects the checkpoint."""
        return self.default_monitor.split("/")[1]

    def validation_loss(self, role: str) -> float:
        """Of bags when they were last scored; of cases, where the data report them."""
        scores = self.scores["val"][role]
        return scores.get("case_loss", scores["bag_loss"])

    @property
    def default_monitor(self) -> str:
        return f"val/{self.roles[0]}/bag_loss"

    def selectable(self, role: str) -> tuple[str, ...]:
        """Scores of bags, and of cases where the data report them: instance labels select nothing."""
        binary = self.num_classes == 2
        return tuple(name for name in self.monitors if binary or not name.endswith("_tuned"))

    def setup(self, stage: str) -> None:
        """Pixel statistics of the training data.

        Raises:
            UserError: images would be normalised twice.
        """
        super().setup(stage)
        if stage != "fit":
            return
        networks = (module for module in self.modules() if module is not self.preprocess)
        if self.preprocess.normalises and any(getattr(network, "normalises", False) for network in networks):
            raise UserError(
                "the encoder has published weights and normalises images itself, and preprocess does, too: set "
                "preprocess.standardise=false preprocess.mean=null preprocess.std=null"
            )
        if self.preprocess.standardise:
            self.preprocess.fit(self.training_sample())
        if not (self.trainer.datamodule.bags.instance_labels >= 0).any():  # type: ignore[attr-defined]
            rank_zero_only(print)("no instance labels: instance scores are left out")

    def training_sample(self) -> Tensor:
        """Stored training instances (M, ...), always the same; fewer where they are large."""
        splits = self.trainer.datamodule.splits  # type: ignore[attr-defined]
        return splits.bags.sample(splits.bags.instances_of(splits.train), STATISTICS_SAMPLE)

    def on_validation_start(self) -> None:
        self._with_readings = self.instance_score == "validation"

    def on_test_start(self) -> None:
        self._with_readings = True

    def collect(self, bags: BagBatch) -> None:
        predictions = self.predict_bags(bags)
        self.shown_readings = {role: prediction.reading for role, prediction in predictions.items()}
        rows = prediction_rows(bags, predictions, self._with_readings)
        chooses = self.instance_score == "validation" and not self.trainer.testing
        self._bag_rows.add(rows.bags)
        self._instance_rows.add(rows.instances | (candidate_columns(predictions) if chooses else {}))

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
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        scores |= self.operating.scores(stage, role, bags, data, of)
        if stage == "val" and self.instance_score == "validation":
            chosen = settle_reading(self.tables[stage], role)
            self.chosen_readings[number] = chosen
            self.shown_readings[role] = NAMES[chosen] if chosen >= 0 else self.shown_readings[role]
        if stage == "val":
            probs, in_positive_bag = instances[f"{role}/probs"], self.tables[stage].in_positive_bag()
            self.instance_thresholds[number] = instance_threshold(probs, in_positive_bag)
        if (instances["label"] >= 0).any():
            threshold = float(self.instance_thresholds[number])
            scores |= instance_table_scores(self.tables[stage], role, threshold, of=f"{of} instances")
            scores |= lesion_scores(self.tables[stage], role, threshold) if stage == "test" else {}
        return scores

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args, **kwargs) -> None:  # type: ignore[no-untyped-def]
        """Checkpoints from before instances had thresholds decide at 0.5."""
        state_dict.setdefault(f"{prefix}instance_thresholds", torch.full_like(self.instance_thresholds, 0.5))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def aggregator_loss(
    output: MILOutput, labels: Tensor, sizes: Tensor, instance_stream_weight: float, targets: BagTargets = PLAIN
) -> Tensor:
    """Loss of bags with labels (B,): of the bag and instance streams, plus what the aggregator adds to it."""
    loss = bag_loss(output.bag_logits, labels, critical_logits(output, sizes), instance_stream_weight, targets)
    return loss if output.auxiliary_loss is None else loss + output.auxiliary_loss(labels)
