"""SyntheticGlands: drawn tissue with exact masks; needs no download, trains in seconds."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from kd_mil.core.errors import UserError
from kd_mil.data.bags import Bags, BagSplits
from kd_mil.data.datamodules import Loading
from kd_mil.data.masks.mask_data import SegmentationData

STROMA, NUCLEUS, TUMOUR_NUCLEUS = (0.90, 0.72, 0.82), (0.55, 0.40, 0.65), (0.38, 0.22, 0.50)
NOISE = 0.04
NUCLEI_PER_PIXEL, TUMOUR_NUCLEI_PER_PIXEL = 1 / 55, 1 / 38


class SyntheticGlands(SegmentationData):
    """Pink stroma with small pale nuclei; in positive images one or two ellipses with large, dark, dense ones.

    The mask is the ellipses. Every second image is positive; all three parts are drawn in the same way.

    Args:
        loading: as in `SegmentationData`.
        image_size: side in pixels.
        train_images, val_images, test_images: how many.
        **data: crop, split_file, seed of `SegmentationData`; the images are a function of `seed`.
    """

    def __init__(
        self,
        loading: Loading,
        image_size: int = 64,
        train_images: int = 192,
        val_images: int = 64,
        test_images: int = 64,
        **data: Any,
    ) -> None:
        super().__init__(loading, **data)
        self.image_size = image_size
        self.numbers = (train_images, val_images, test_images)
        if min(self.numbers) < 4 or image_size < 32:
            raise UserError("data=synthetic_glands needs at least 4 images in each part, of 32 pixels or more a side")
        self._truth = torch.empty(0)

    def load(self) -> BagSplits:
        """Draw all images."""
        count = sum(self.numbers)
        drawn = [draw_tissue(self.image_size, number % 2 == 1, self.seed, number) for number in range(count)]
        self._truth = torch.from_numpy(np.stack([mask for _, mask in drawn]))
        bags = Bags(
            instances=torch.from_numpy(np.stack([image for image, _ in drawn])),
            sizes=torch.ones(count, dtype=torch.long),
            labels=torch.arange(count) % 2,
            bag_ids=[f"image{number:04d}" for number in range(count)],
        )
        train, val, test = torch.arange(count).split(list(self.numbers))
        return BagSplits(bags, train, val, test)

    def read_masks(self, positions: Tensor) -> Tensor:
        return self._truth[positions]


def draw_tissue(size: int, positive: bool, seed: int, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Image (3, size, size) uint8 and mask (size, size) uint8, a function of seed and number."""
    random = np.random.default_rng((seed, number))
    rows, columns = np.mgrid[:size, :size]
    mask = np.zeros((size, size), dtype=bool)
    for _ in range(random.integers(1, 3) if positive else 0):
        mask |= ellipse(random, rows, columns, size)
    image = np.empty((3, size, size))
    image[:] = np.reshape(STROMA, (3, 1, 1))
    for tumour, density, radius, colour in (
        (False, NUCLEI_PER_PIXEL, 1.3, NUCLEUS),
        (True, TUMOUR_NUCLEI_PER_PIXEL, 2.1, TUMOUR_NUCLEUS),
    ):
        for y, x in random.uniform(0, size, (round(size * size * density), 2)):
            if mask[int(y), int(x)] == tumour:
                nucleus = (rows - y) ** 2 + (columns - x) ** 2 <= (radius * random.uniform(0.8, 1.2)) ** 2
                image[:, nucleus] = np.reshape(colour, (3, 1))
    image += random.normal(0, NOISE, image.shape)
    return (image.clip(0, 1) * 255).round().astype(np.uint8), mask.astype(np.uint8)


def ellipse(random: np.random.Generator, rows: np.ndarray, columns: np.ndarray, size: int) -> np.ndarray:
    """Pixels (size, size) bool of a random ellipse whose centre lies in the image."""
    y, x = random.uniform(0.25 * size, 0.75 * size, 2)
    long, short = np.sort(random.uniform(0.14 * size, 0.32 * size, 2))[::-1]
    angle = random.uniform(0, np.pi)
    along = (columns - x) * np.cos(angle) + (rows - y) * np.sin(angle)
    across = (rows - y) * np.cos(angle) - (columns - x) * np.sin(angle)
    return (along / long) ** 2 + (across / short) ** 2 <= 1
