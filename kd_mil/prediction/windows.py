"""One map from overlapping windows, blended so that no seam shows."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kd_mil.core.errors import UserError

GIBIBYTE = 1024**3
Item = TypeVar("Item")


class Canvas:
    """A map (height, width) that windows are laid on, each weighing less towards its rim.

    Args:
        height, width: in pixels.
        max_gib: largest memory it may take.

    Raises:
        UserError: it would take more.
    """

    def __init__(self, height: int, width: int, max_gib: float = 8.0) -> None:
        needed = height * width * 8 / GIBIBYTE
        if needed > max_gib:
            raise UserError(
                f"a map of {width}x{height} pixels takes {needed:.1f} GiB: raise reduce, mpp or max_gib={max_gib:g}"
            )
        self.total = np.zeros((height, width), dtype=np.float32)
        self.weight = np.zeros((height, width), dtype=np.float32)

    def add(self, row: int, column: int, probs: np.ndarray) -> None:
        """Lay a map (h, w) with its corner at (row, column); what reaches beyond the canvas is cut off."""
        top, left = max(row, 0), max(column, 0)
        bottom, right = min(row + probs.shape[0], len(self.total)), min(column + probs.shape[1], self.total.shape[1])
        if top >= bottom or left >= right:
            return
        weights = rim_weights(*probs.shape)[top - row : bottom - row, left - column : right - column]
        self.total[top:bottom, left:right] += weights * probs[top - row : bottom - row, left - column : right - column]
        self.weight[top:bottom, left:right] += weights

    def result(self) -> np.ndarray:
        """Weighted mean of the windows, float32; 0 where none lies."""
        return np.divide(self.total, self.weight, out=np.zeros_like(self.total), where=self.weight > 0)


def rim_weights(height: int, width: int) -> np.ndarray:
    """Weights (height, width) in (0, 1]: from the middle to the rim they fall off evenly along both axes."""
    sides = [1 - np.abs((np.arange(side) + 0.5) / side * 2 - 1) for side in (height, width)]
    return np.outer(*sides).astype(np.float32)


def window_starts(length: int, window: int, overlap: int) -> list[int]:
    """Starts of windows that cover `length`, the last one moved inside; 0 alone where one covers it all."""
    if length <= window:
        return [0]
    starts = list(range(0, length - window, window - overlap))
    return [*starts, length - window]


@torch.inference_mode()
def image_map(
    predict: Callable[[Tensor], Tensor], image: Tensor, window: tuple[int, int], overlap: int, batch_size: int
) -> np.ndarray:
    """Map (H, W) float32 of one image (C, H, W) uint8 of any size, by windows of (height, width).

    An image smaller than a window is continued by its edge pixels.
    """
    height, width = image.shape[-2:]
    padded = F.pad(image[None].float(), (0, max(window[1] - width, 0), 0, max(window[0] - height, 0)), mode="replicate")
    padded = padded[0].to(image.dtype)
    canvas = Canvas(padded.shape[-2], padded.shape[-1])
    corners = itertools.product(
        *(window_starts(*axis, overlap) for axis in zip(padded.shape[-2:], window, strict=True))
    )
    for group in grouped(corners, batch_size):
        maps = predict(torch.stack([padded[:, y : y + window[0], x : x + window[1]] for y, x in group]))
        for (y, x), probs in zip(group, maps.float().cpu().numpy(), strict=True):
            canvas.add(y, x, probs)
    return canvas.result()[:height, :width]


def grouped(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of at most `size` items, in order."""
    iterator = iter(items)
    while group := list(itertools.islice(iterator, size)):
        yield group
