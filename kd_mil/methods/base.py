"""What all methods share: manual steps, epochs that are functions of (seed, epoch), and evaluation without padding."""

from collections.abc import Callable, Iterable
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from kd_mil.data.bag import BagBatch
from kd_mil.distributed import sync_batchnorm_statistics
from kd_mil.errors import UserError
from kd_mil.evaluation.metrics import bag_scores, instance_scores
from kd_mil.evaluation.tables import PredictionCollector, PredictionTables
from kd_mil.evaluation.thresholds import youden_threshold
from kd_mil.models.outputs import Prediction
from kd_mil.models.preprocess import Preprocess

OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]
ModuleFactory = Callable[..., nn.Module]

STATISTICS_SAMPLE = 20_000


class Distiller(L.LightningModule):
    """Base of every method. A method says what it trains on, how it steps, and what its roles predict.

    Args:
        preprocess: from stored instances to encoder input.
        optimizer: makes an optimiser for one part's parameters.
        gradient_clip: largest norm of the gradient of each part, None for no limit.
        seed: seed of everything random in training; with the epoch number and the rank it fixes each epoch.
    """

    train_views: tuple[str, ...] = ("bags",)
    """Views of the training data, in the order in which one epoch shows them: `bags`, `instances`."""
    roles: tuple[str, ...] = ("model",)

    bag_thresholds: Tensor

    def __init__(
        self, preprocess: Preprocess, optimizer: OptimizerFactory, gradient_clip: float | None = None, seed: int = 0
    ) -> None:
        super().__init__()
        if gradient_clip is not None and gradient_clip <= 0:
            raise UserError(f"method.gradient_clip={gradient_clip}: must be positive, or null for no limit")
        self.automatic_optimization = False
        self.preprocess, self.new_optimizer = preprocess, optimizer
        self.gradient_clip, self.seed = gradient_clip, seed
        self.register_buffer("bag_thresholds", torch.full((len(self.roles),), 0.5))
        self.tables: dict[str, PredictionTables] = {}
        self.model_card: dict[str, Any] = {}
        self._collector = PredictionCollector()

    def parts(self) -> list[nn.Module]:
        """The networks that are trained, each with an optimiser of its own."""
        raise NotImplementedError

    def predict_bags(self, bags: BagBatch) -> dict[str, Prediction]:
        """What each role says about a batch of bags; called in eval mode without gradient."""
        raise NotImplementedError

    def configure_optimizers(self) -> list[Optimizer]:
        return [self.new_optimizer(part.parameters()) for part in self.parts()]

    def optimizer_list(self) -> list[Any]:
        """The wrapped optimisers, in the order of `parts`: only what Lightning returns may step."""
        optimizers = self.optimizers()
        return optimizers if isinstance(optimizers, list) else [optimizers]

    def descend(self, loss: Tensor, *optimizers: Any) -> None:
        """One update: the given optimisers step on the loss, nothing else moves."""
        for optimizer in optimizers:
            optimizer.zero_grad()
        self.manual_backward(loss)
        for optimizer in optimizers:
            if self.gradient_clip is not None:
                self.clip_gradients(optimizer, gradient_clip_val=self.gradient_clip, gradient_clip_algorithm="norm")
            optimizer.step()

    def log_loss(self, name: str, loss: Tensor, batch_size: int) -> None:
        """Log a training loss as its mean over the epoch."""
        self.log(f"loss/{name}", loss.detach(), on_step=False, on_epoch=True, batch_size=batch_size)

    def setup(self, stage: str) -> None:
        if stage == "fit" and self.preprocess.standardise:
            splits = self.trainer.datamodule.splits  # type: ignore[attr-defined]
            instances = splits.bags.instances_of(splits.train)
            generator = torch.Generator().manual_seed(0)
            sample = instances[torch.randperm(len(instances), generator=generator)[:STATISTICS_SAMPLE]]
            self.preprocess.fit(splits.bags.instance_batch(sample.sort().values).instances)

    def on_train_epoch_start(self) -> None:
        """Dropout and augmentation depend on (seed, epoch, rank) alone, so a resumed epoch repeats exactly."""
        torch.manual_seed((self.seed * 1_000_003 + self.current_epoch) * 1009 + self.global_rank)

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

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["model_card"] = self.model_card


def check_share(name: str, value: float) -> None:
    """Refuse a share outside [0, 1].

    Raises:
        UserError: naming the setting.
    """
    if not 0 <= value <= 1:
        raise UserError(f"{name}={value}: a share, it must lie in [0, 1]")
