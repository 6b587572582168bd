"""Batches: what methods train on and what they are evaluated with.

In training on several ranks each of them has all tables of a step, and of what the networks read, the share that it
computes: one stand-in row where it has none.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from kd_mil.core.machine.shares import Share

UNKNOWN = 255
"""Value of a mask where nobody has said whether a pixel is positive."""


class ImageBatch(NamedTuple):
    """B images with their labels, and nothing about pixels."""

    images: Tensor
    """(B, 3, H, W) uint8."""
    labels: Tensor
    """(B,) int64 in {0, 1}."""
    indices: Tensor
    """(B,) int64 position of the image in the data set."""
    share: Share | None = None
    """Which images this rank has in a training step; None: all of them."""


class MaskedBatch(NamedTuple):
    """B images with their pixel masks: evaluation, and the supervised baseline."""

    images: Tensor
    """(B, 3, H, W) uint8."""
    labels: Tensor
    """(B,) int64 in {0, 1}."""
    indices: Tensor
    """(B,) int64."""
    masks: Tensor
    """(B, H, W) uint8: 0, 1, or `UNKNOWN`."""
    share: Share | None = None
    """Which images and masks this rank has in a training step; None: all of them."""


class BagBatch(NamedTuple):
    """B whole bags; B = 1 is the papers' setting, a larger B the fast one."""

    instances: Tensor
    """(N, ...) uint8 pixels (N, 3, H, W) or float features (N, D), N = sizes.sum()."""
    sizes: Tensor
    """(B,) int64, instances per bag, each >= 1."""
    labels: Tensor
    """(B,) int64 bag labels."""
    instance_labels: Tensor
    """(N,) int64, -1 = unknown; for evaluation only."""
    instance_ids: Tensor
    """(N,) int64, stable over the run."""
    coords: Tensor | None
    """(N, 2) int64 (x, y) of the top-left corner in level-0 pixels; None in training, which does not read them."""
    bag_indices: Tensor
    """(B,) int64 position of the bag in the data set."""
    bag_ids: list[str]
    share: Share | None = None
    """Which instances this rank has in a training step; None: all of them."""


class InstanceBatch(NamedTuple):
    """M instances drawn from any bags: what an instance classifier trains on."""

    instances: Tensor
    """(M, ...) as in `BagBatch`."""
    labels: Tensor
    """(M,) int64 label of the bag each instance comes from."""
    instance_labels: Tensor
    """(M,) int64, -1 = unknown; only the supervised baseline may train on it."""
    instance_ids: Tensor
    """(M,) int64."""
    bag_indices: Tensor
    """(M,) int64 bag each instance comes from."""
    share: Share | None = None
    """Which instances this rank has in a training step; None: all of them."""


class PairBatch(NamedTuple):
    """B images as the two networks see them, sizes may differ; a view leaves out what it has no use of."""

    teacher: list[Tensor]
    """B images (3, H, W) uint8 at the teacher's resolution, or none."""
    student: list[Tensor]
    """B images (3, h, w) uint8 at the student's resolution, or none."""
    labels: Tensor
    """(B,) int64; -1 where training is not to see it."""
    indices: Tensor
    """(B,) int64, stable over the run."""
    share: Share | None = None
    """Which images this rank has in a training step; None: all of them."""


def same_size_groups(*images: Sequence[Tensor], max_pixels: int | None = None) -> list[list[int]]:
    """Positions of images that can be stacked: equal size in every given list.

    Args:
        *images: lists of (3, H, W), of equal length; empty lists are left out.
        max_pixels: a group ends before its images, of all lists together, would have more; a larger one goes alone.
    """
    lists = [members for members in images if members]
    by_size: dict[tuple, list[int]] = defaultdict(list)
    for position, members in enumerate(zip(*lists, strict=True)):
        by_size[tuple(member.shape for member in members)].append(position)
    groups: list[list[int]] = []
    for shapes, positions in by_size.items():
        each = sum(shape[-1] * shape[-2] for shape in shapes)
        count = len(positions) if max_pixels is None else max(1, max_pixels // each)
        groups += [positions[start : start + count] for start in range(0, len(positions), count)]
    return groups
