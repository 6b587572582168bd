"""Batches of labelled images: what methods train on and what they are evaluated with."""

from typing import NamedTuple

from torch import Tensor

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


class MaskedBatch(NamedTuple):
    """B images with their pixel masks: evaluation, and the supervised reference line."""

    images: Tensor
    """(B, 3, H, W) uint8."""
    labels: Tensor
    """(B,) int64 in {0, 1}."""
    indices: Tensor
    """(B,) int64."""
    masks: Tensor
    """(B, H, W) uint8: 0, 1, or `UNKNOWN`."""
