"""Pseudo-labels that are made once an epoch, for all training instances at once."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from kd_mil.methods.base.bag_method import BagMethod
from kd_mil.methods.weno.margins import Margins, instance_margins
from kd_mil.methods.weno.transport_labels import TransportLabels


def labels_of_epoch(
    method: BagMethod, aggregator: nn.Module, head: nn.Module, transport: TransportLabels | None
) -> Tensor:
    """Pseudo-labels (N,) of all instances of the data set, of which the training instances matter.

    Those of negative bags are 0. In positive bags they are the teacher's probabilities of bags of one, or labels by
    transport; before the latter have warmed up, 1.

    Args:
        method: in training; it encodes the instances.
        aggregator, head: teacher and student, as they evaluate.
        transport: None for bags of one.

    Raises:
        UserError: a fixed `transport.mass` below 0.5 in a run without an end.
    """
    splits = method.trainer.datamodule.splits  # type: ignore[attr-defined]
    bags = splits.bags
    labels = (bags.labels[bags.bag_of_instance] > 0).to(method.device, torch.get_default_dtype())
    if transport is not None and method.current_epoch < transport.warm_up:
        return labels
    margins_of = partial(instance_margins, method, aggregator, head)
    chosen = splits.train[bags.labels[splits.train] > 0]
    positive = margins_of(chosen)
    positions = bags.instances_of(chosen).to(method.device)
    if transport is None:
        labels[positions] = torch.sigmoid(positive.teacher)
    else:
        labels[positions] = transport.labels(positive, _mass(method, transport, positive, margins_of))
    return labels


def _mass(
    method: BagMethod, transport: TransportLabels, positive: Margins, margins_of: Callable[[Tensor], Margins]
) -> float:
    """Share of positive instances in positive training bags that transport is to assume in this epoch."""
    splits = method.trainer.datamodule.splits  # type: ignore[attr-defined]
    if transport.mass.needs_validation:
        validation = margins_of(splits.val)
        bag_labels = splits.bags.labels.to(method.device)[validation.owners]
        mean_size = float(splits.bags.sizes[splits.train].double().mean())
        return transport.estimated_mass(positive, validation, bag_labels, mean_size)
    return transport.mass.scheduled(method.current_epoch, method.run_epochs)
