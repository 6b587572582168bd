"""Images that are not decoded yet, and their smaller copies, each made from the original in one step."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from kd_mil.slides.formats.reducing import downsampled, downsampled_size


class ImageSource(NamedTuple):
    """N labelled images that are not decoded yet."""

    ids: list[str]
    """Unique."""
    labels: Tensor
    """(N,) int64; -1 = unknown, for auxiliary images alone."""
    class_names: tuple[str, ...]
    open: Callable[[int], Image.Image]
    """RGB image at a position, at the original resolution; sent to worker processes, so no lambda."""
    cases: list[str] | None = None
    """Patient of each image; None: every image is a case of its own."""
    parts: list[str] | None = None
    """`train`, `val`, `test` or `auxiliary`; empty where the data module is to divide."""
    scales: list[float] | None = None
    """Pixels of each original for one pixel at downsample 1, where originals differ in resolution; None: 1."""
    twins: Sequence[Sequence[int]] = ()
    """Groups of positions of images of equal content."""
    left_out: Mapping[str, str] = MappingProxyType({})
    """Why, by name of what gave no image: a slide that cannot be read."""
    read_at: Callable[[int, float], Image.Image] | None = None
    """RGB image at a position and a downsample, where it can be read smaller; None: it is reduced from the original."""


@dataclass(frozen=True)
class PixelReader:
    """Opens images that are in memory by their position; travels to worker processes."""

    images: Sequence[np.ndarray] | np.ndarray
    """N images (3, H, W) uint8."""

    def __call__(self, index: int) -> Image.Image:
        """The image, RGB."""
        return Image.fromarray(np.ascontiguousarray(np.moveaxis(self.images[index], 0, 2)))


class ImageStack:
    """The images of a source at one downsampling, made or read once and kept as uint8.

    Images beyond the memory given are made anew whenever they are asked for.

    Args:
        source: gives the originals.
        downsample: side lengths are divided by this much; in one Lanczos step, unless the source reads them smaller.
            1 keeps the original.
    """

    def __init__(self, source: ImageSource, downsample: float) -> None:
        self.open_image, self.read_at, self.downsample = source.open, source.read_at, downsample
        self.downsamples = [downsample * scale for scale in source.scales or [1.0] * len(source.ids)]
        self.kept: dict[int, Tensor] = {}
        self.sizes: dict[int, tuple[int, int]] = {}
        self.nbytes = 0

    def keep(self, position: int, original: Image.Image | None, room: int) -> None:
        """Take in one image, unless it needs more than `room` bytes; without its original it is read."""
        image = original if original is not None else self._image(position)
        downsample = self.downsamples[position] if original is not None else 1.0
        width, height = downsampled_size(image.size, downsample)
        self.sizes[position] = (height, width)
        if 3 * height * width <= room:
            self.kept[position] = pixels(downsampled(image, downsample))
            self.nbytes += 3 * height * width

    def _image(self, position: int) -> Image.Image:
        if self.read_at is not None:
            return self.read_at(position, self.downsample)
        return downsampled(self.open_image(position), self.downsamples[position])

    def __getitem__(self, position: int) -> Tensor:
        """Image (3, H, W) uint8."""
        return self.kept[position] if position in self.kept else self.made(position)

    def made(self, position: int) -> Tensor:
        """The image as above, made or read anew."""
        return pixels(self._image(position))


def pixels(image: Image.Image) -> Tensor:
    """RGB image as (3, H, W) uint8."""
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).contiguous()


def channel_statistics(images: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (3,) over all pixels of uint8 images, on the scale of [0, 1]; constants get 1."""
    histogram = torch.zeros(3, 256, dtype=torch.float64)
    for image in images:
        for channel in range(3):
            histogram[channel] += torch.bincount(image[channel].flatten().long(), minlength=256)
    share = histogram / histogram.sum(1, keepdim=True)
    levels = torch.arange(256, dtype=torch.float64) / 255
    mean = share @ levels
    std = (share * (levels - mean[:, None]).square()).sum(1).sqrt()
    return mean.float(), torch.where(std > 0, std, 1.0).float()
