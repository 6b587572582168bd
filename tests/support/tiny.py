"""A feature data set and networks small enough to train in milliseconds, shared by the tests of methods."""

from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from kd_mil.data.bags import Bags, BagSplits
from kd_mil.data.datamodules import BagDataModule, Loading
from kd_mil.methods.weno.mining import HardPositiveMining
from kd_mil.models.aggregators.abmil import ABMIL
from kd_mil.models.heads import InstanceHead
from kd_mil.models.preprocess import Preprocess

WIDTH = 6


def tiny_splits(seed: int = 0, bags: int = 24, largest: int = 9, classes: int = 2, smallest: int = 2) -> BagSplits:
    """Gaussian features; positive instances, about a third of a positive bag, are shifted."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.randint(smallest, largest + 1, (bags,), generator=generator)
    labels = torch.arange(bags) % classes
    owner = torch.arange(bags).repeat_interleave(sizes)
    starts = sizes.cumsum(0) - sizes
    positive = (torch.rand(len(owner), generator=generator) < 0.3) | (torch.arange(len(owner)) == starts[owner])
    instance_labels = (positive & (labels[owner] > 0)).long()
    features = torch.randn(len(owner), WIDTH, generator=generator) + 1.5 * instance_labels[:, None]
    data = Bags(
        instances=features,
        sizes=sizes,
        labels=labels,
        bag_ids=[f"bag{index}" for index in range(bags)],
        instance_labels=instance_labels,
        class_names=tuple(f"class{index}" for index in range(classes)),
    )
    order = torch.arange(bags)
    return BagSplits(data, order[: bags // 2], order[bags // 2 : 3 * bags // 4], order[3 * bags // 4 :])


class TinyData(BagDataModule):
    """Serves given splits."""

    def __init__(self, given: BagSplits, seed: int = 0, **loading: Any) -> None:
        super().__init__(Loading(**{"instances_per_step": 16} | loading), seed=seed)
        self.given = given

    def load(self) -> BagSplits:
        return self.given


class TinyEncoder(nn.Module):
    """Linear, BatchNorm (optional), ReLU."""

    def __init__(self, instance_shape: tuple[int, ...], norm: bool = True) -> None:
        super().__init__()
        self.out_features = 8
        self.linear = nn.Linear(instance_shape[0], 8)
        self.norm = nn.BatchNorm1d(8) if norm else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        return self.norm(self.linear(features)).relu()


def tiny_parts(norm: bool = True) -> dict[str, Any]:
    """Factories and settings every method takes."""
    return {
        "instance_shape": (WIDTH,),
        "num_classes": 2,
        "encoder": partial(TinyEncoder, norm=norm),
        "preprocess": Preprocess(),
        "optimizer": partial(torch.optim.SGD, lr=0.02, momentum=0.9),
    }


def tiny_abmil(**settings: Any) -> partial:
    return partial(ABMIL, **{"hidden": (), "attention_dim": 5} | settings)


def tiny_head() -> partial:
    return partial(InstanceHead, hidden=(7,))


def no_mining() -> HardPositiveMining:
    return HardPositiveMining(mode="off")


def fit(
    method: L.LightningModule, data: BagDataModule, epochs: int = 1, start: Path | None = None, **trainer: Any
) -> L.Trainer:
    """Train quietly on the CPU, from a checkpoint on if one is given."""
    settings: dict[str, Any] = {
        "max_epochs": epochs,
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "use_distributed_sampler": False,
    }
    runner = L.Trainer(**settings | trainer)
    runner.fit(method, datamodule=data, ckpt_path=start)
    return runner
