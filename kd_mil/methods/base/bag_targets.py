"""Class weights and label smoothing of a method on bags, as the settings of a run ask for them."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from kd_mil.core.checks import at_least, share
from kd_mil.core.errors import UserError
from kd_mil.methods.base.accumulation import gather_steps
from kd_mil.methods.base.bag_losses import BagTargets
from kd_mil.methods.base.bag_method import BagMethod
from kd_mil.methods.base.method import Method

ClassWeights = Literal["balanced"] | Sequence[float] | None


def learn_from(method: Method, labels: Tensor, class_weights: ClassWeights, label_smoothing: float) -> None:
    """Let a method learn from the labels of training bags with class weights and smoothing.

    Args:
        method: before training.
        labels: (B,) int64 of the training bags; read for `balanced` alone.
        class_weights: `balanced`: the number of bags by that of each class, so that their mean over the bags is 1; or a
            weight for each class; None = 1.
        label_smoothing: in [0, 1).

    Raises:
        UserError: a number out of range, weights of another number of classes, or a method that
            learns from no labels of bags.
    """
    share("label_smoothing", label_smoothing, one=False)
    if class_weights is None and label_smoothing == 0:
        return
    if not (isinstance(method, BagMethod) and method.learns_from_targets):
        name = type(method).__name__
        raise UserError(f"class_weights, label_smoothing: {name} learns from no labels of bags, leave them out")
    method.bag_targets = BagTargets(weights_of(class_weights, labels, method.num_classes), label_smoothing)


def weights_of(given: ClassWeights, labels: Tensor, num_classes: int) -> Tensor | None:
    """The weights (C,) float32 that are meant; errors as in `learn_from`."""
    if given is None:
        return None
    if given == "balanced":
        counts = torch.bincount(labels.cpu(), minlength=num_classes)
        return len(labels) / (num_classes * counts.float())
    if isinstance(given, str) or len(given) != num_classes:
        raise UserError(f"class_weights={given}: give balanced, or a number for each of the {num_classes} classes")
    for weight in given:
        at_least("class_weights", weight, 0)
    return torch.tensor([float(weight) for weight in given])


def train_on_bags(method: Method, data: Any, settings: Mapping[str, Any]) -> None:
    """Let a method train on bags as the settings of a run say: `accumulate_bags`, `class_weights`, `label_smoothing`.

    Raises:
        UserError: as `gather_steps` and `learn_from`.
    """
    gather_steps(method, settings["accumulate_bags"])
    learn_from(method, training_labels(data), settings["class_weights"], settings["label_smoothing"])


def training_labels(data: Any) -> Tensor:
    """Labels (B,) of the training bags of a data module; none where it holds no bags."""
    splits = getattr(data, "splits", None)
    train = getattr(splits, "train", None)
    return torch.empty(0, dtype=torch.long) if train is None else splits.bags.labels[train]  # type: ignore[union-attr]
