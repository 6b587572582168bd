"""Single bags as Python code has them, and what they must be to lie end to end."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kd_mil.core.errors import UserError


class Bag(NamedTuple):
    """One bag, for `Bags.from_list`."""

    instances: Any
    """(N, ...) uint8 pixels or floating point features: a tensor, or an array."""
    label: int
    bag_id: str | None = None
    """None = its number in the list."""
    instance_labels: Any = None
    """(N,) 0 or 1, -1 where unknown; None = all unknown. Evaluation only."""
    coords: Any = None
    """(N, 2) level-0 pixels (x, y)."""
    case_id: str | None = None
    """Patient; None = the bag is a case of its own."""


def instances_of(bags: Sequence[Bag], ids: Sequence[str]) -> list[Tensor]:
    """The instances (N, ...) of each bag, all of one shape and type.

    Raises:
        UserError: no bags, instances of different kinds or of one that no encoder takes, or features not finite.
    """
    if not bags:
        raise UserError("no bags: give at least one of each class in each part")
    instances = [torch.as_tensor(bag.instances) for bag in bags]
    shape, dtype = instances[0].shape[1:], instances[0].dtype
    for name, own in zip(ids, instances, strict=True):
        if own.dim() < 2 or (own.dtype != torch.uint8 and not own.is_floating_point()):
            raise UserError(
                f"bag {name!r}: instances must be (N, D) floating point features or (N, C, H, W) uint8 pixels, "
                f"not {tuple(own.shape)} {own.dtype}"
            )
        if own.shape[1:] != shape or own.dtype != dtype:
            raise UserError(
                f"bag {name!r} has instances {tuple(own.shape[1:])} {own.dtype}, "
                f"bag {ids[0]!r} has {tuple(shape)} {dtype}: give all of one kind"
            )
        if own.is_floating_point() and not own.isfinite().all():
            raise UserError(f"bag {name!r} has features that are NaN or infinite: remove them")
    return instances


def instance_labels_of(bag: Bag, name: str) -> Tensor:
    """(N,) int64 labels of a bag's instances, -1 where unknown.

    Raises:
        UserError: not one for each instance, or one that is no whole number, such as a share of tumour.
    """
    if bag.instance_labels is None:
        return torch.full((len(bag.instances),), -1)
    labels = torch.as_tensor(bag.instance_labels)
    if labels.shape != (len(bag.instances),):
        raise UserError(
            f"bag {name!r} has {len(bag.instances)} instances, but instance_labels of shape {tuple(labels.shape)}: "
            "give one for each"
        )
    if not torch.equal(labels.long().to(labels.dtype), labels):
        raise UserError(f"bag {name!r} has instance_labels that are no whole numbers: give 0 or 1, -1 where unknown")
    return labels.long()


def coords_of(bags: Sequence[Bag], ids: Sequence[str]) -> Tensor | None:
    """(N, 2) int64 positions of all instances; None where no bag has any.

    Raises:
        UserError: some bags have them, others have none; or not one (x, y) for each instance.
    """
    given = [bag.coords is not None for bag in bags]
    if any(given) and not all(given):
        raise UserError(f"bag {ids[given.index(False)]!r} has no coords, others have: give them for all, or for none")
    if not all(given):
        return None
    coords = [torch.as_tensor(bag.coords).long() for bag in bags]
    for bag, name, own in zip(bags, ids, coords, strict=True):
        if own.shape != (len(bag.instances), 2):
            raise UserError(
                f"bag {name!r} has {len(bag.instances)} instances, but coords of shape {tuple(own.shape)}: "
                "give one (x, y) for each"
            )
    return torch.cat(coords)
