"""Images that stay in their files until a batch asks for them."""

from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from kd_mil.core.errors import UserError
from kd_mil.slides.formats.image_decoding import IMAGE_SUFFIXES, decode_rgb, opened_image


class ImageFiles:
    """Lazy instances (N, 3, H, W) uint8, decoded at every access; nothing stays open, so workers may share it.

    Args:
        paths: N image files.
        size: (height, width) in pixels; an image of another size is resized.
    """

    def __init__(self, paths: Sequence[str] | np.ndarray, size: tuple[int, int]) -> None:
        self.paths, self.size = np.asarray(paths, dtype=np.str_), size
        self.shape: tuple[int, ...] = (len(self.paths), 3, *size)
        self.dtype = torch.uint8

    @classmethod
    def open(cls, paths: Sequence[Path], image_size: int | None = None) -> "ImageFiles":
        """Take square images of `image_size` pixels, or the size the files have in common (only headers are read).

        Raises:
            UserError: a file that is no image, or images of unequal size and no `image_size`.
        """
        names = [str(path) for path in paths]
        if image_size is not None:
            return cls(names, (image_size, image_size))
        first = _size(names[0])
        for name in tqdm(names, desc="image sizes", unit="file", disable=None, leave=False):
            require_size(_size(name), first, name, names[0])
        return cls(names, first)

    @property
    def nbytes(self) -> int:
        """Bytes of all decoded images."""
        return int(np.prod(self.shape))

    def __getitem__(self, positions: Tensor) -> Tensor:
        images = np.empty((len(positions), 3, *self.size), dtype=np.uint8)
        for row, path in enumerate(self.paths[positions.numpy()]):
            images[row] = decode_image(path, str(path), self.size)
        return torch.from_numpy(images)

    def select(self, positions: Tensor) -> "ImageFiles":
        """The files at `positions` (M,) int64, still unread."""
        return ImageFiles(self.paths[positions.numpy()], self.size)

    def read(self) -> Tensor:
        """All images (N, 3, H, W) uint8 in memory."""
        images = np.empty(self.shape, dtype=np.uint8)
        for row, path in enumerate(tqdm(self.paths, desc="images", unit="file", disable=None, leave=False)):
            images[row] = decode_image(path, str(path), self.size)
        return torch.from_numpy(images)


def decode_image(source: str | IO[bytes], name: str, size: tuple[int, int] | None = None) -> np.ndarray:
    """One image (3, H, W) uint8 as `decode_rgb` reads it, resized where `size` (height, width) is given and differs.

    Raises:
        UserError: not a readable 8-bit image; `name` says which.
    """
    image = decode_rgb(source, name)
    if size is not None and image.size != size[::-1]:
        image = image.resize(size[::-1], Image.Resampling.BILINEAR)
    return np.asarray(image).transpose(2, 0, 1)


def require_size(size: tuple[int, int], expected: tuple[int, int], name: str, first: str) -> None:
    """Refuse an image whose (height, width) differs from that of the first.

    Raises:
        UserError: naming both files and sizes.
    """
    if size != expected:
        raise UserError(
            f"{name} has {size[1]}x{size[0]} pixels, {first} has {expected[1]}x{expected[0]}: "
            "set data.image_size=PIXELS to resize them all"
        )


def _size(path: str) -> tuple[int, int]:
    """(height, width) by the file's header."""
    with opened_image(path, path) as image:
        return image.height, image.width


def image_file(folder: Path, name: str) -> Path:
    """The image called `name`, whatever its format; a path that does not exist where there is none."""
    found = [folder / f"{name}{suffix}" for suffix in sorted(IMAGE_SUFFIXES)]
    return next((path for path in found if path.is_file()), found[0])


def image_paths(folder: Path) -> list[Path]:
    """Image files of a folder, sorted; none where there is no folder."""
    found = folder.iterdir() if folder.is_dir() else []
    return sorted(path for path in found if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("."))
